"""The experiments say what their results say; their records are whole and give nothing away."""

import importlib
import json
import re
from pathlib import Path

import pytest

from digitlab.reproduction.verdict import accuracy_band, accuracy_gap
from digitlab.runs import document
from experiments import reporting
from experiments.records import STUDIES, native_records, portable_of
from experiments.scale import run as scale
from tests.support.cli import CHECKOUT, Cli, in_ci, slow

EXPERIMENTS = CHECKOUT / "experiments"
RECORDS = native_records()
PORTABLE = [portable_of(file) for file in RECORDS if portable_of(file).exists()]
# One of each model, the quickest.
ONE_OF_EACH = ("tutorial/records/tutorial_as_described", "budget/records/cnn_1_epochs")
# Study, its results, the table made of them, the columns whose rows are one value over seeds.
TABLES = [
    ("tutorial", "results.csv", "table.md", "table", ("preset",)),
    ("tutorial", "batch_sizes.csv", "batch_sizes.md", "batch_table", ("batch_size", "learning_rate")),
    ("optimizers", "results.csv", "table.md", "table", ("model", "optimizer", "learning_rate")),
    ("budget", "results.csv", "table.md", "table", ("model", "epochs")),
    ("rounding", "results.csv", "table.md", "table", ("model", "change")),
    ("search", "results.csv", "table.md", "table", ("search",)),
]


@pytest.mark.parametrize(("study", "results", "table", "function", "columns"), TABLES)
def test_the_table_is_made_of_the_results_and_stands_in_the_readme(
    study: str, results: str, table: str, function: str, columns: tuple[str, ...]
) -> None:
    folder = EXPERIMENTS / study
    module = importlib.import_module(f"experiments.{study}.run")
    rows = reporting.read_csv(folder / results)
    text = (folder / table).read_text()
    assert getattr(module, function)(rows) == text
    assert text in (folder / "README.md").read_text()
    for own in reporting.grouped(rows, *columns).values():
        assert len({row["seed"] for row in own}) >= 3


@pytest.mark.parametrize("study", STUDIES)
def test_each_folder_has_what_a_reader_needs(study: str) -> None:
    text = (EXPERIMENTS / study / "README.md").read_text()
    for part in ("**Question.**", "**Command", "**Results.**", "**Conclusion.**", "Cost:"):
        assert part in text, part
    assert f"python -m experiments.{study}.run" in text
    for name in re.findall(r"\]\(([\w./]+)\)", text) + re.findall(
        r"digitlab reproduce (\S+\.json)", text
    ):
        assert (EXPERIMENTS / study / name).exists() or (CHECKOUT / name).exists(), name
    assert f"]({study}/README.md)" in (EXPERIMENTS / "README.md").read_text()


def test_the_paper_on_scale_is_computed_from_what_was_measured() -> None:
    folder = EXPERIMENTS / "scale"
    measured = json.loads((folder / "measured.json").read_text())
    text, page = (folder / "table.md").read_text(), (folder / "README.md").read_text()
    assert scale.table(measured) == text
    assert text in page
    assert f"{scale.break_even_seconds(measured):.0f} core seconds" in page
    assert "](scale/README.md)" in (EXPERIMENTS / "README.md").read_text()


def test_there_are_records_of_every_study() -> None:
    assert {file.parents[1].name for file in RECORDS} == set(STUDIES)


def named(file: Path) -> str:
    """`budget/records/cnn_1_epochs`, of a portable record as of its native one."""
    return f"{file.parents[1].name}/records/{file.name.split('.')[0]}"


@pytest.mark.parametrize("file", RECORDS, ids=named)
def test_a_record_parses_and_is_that_of_a_published_run(file: Path) -> None:
    found = document.parse(file.read_bytes())
    assert found.trace is not None
    assert found.code.patch is None or re.fullmatch(r"[0-9a-f]{64}", found.code.patch)
    accuracy = float.fromhex(found.trace.test["accuracy"])
    results = [reporting.read_csv(csv) for csv in file.parents[1].glob("*.csv")]
    published = {row["test_accuracy"] for rows in results for row in rows if row.get("test_accuracy")}
    assert any(abs(accuracy - float(value)) < 1e-9 for value in published)
    assert found.machine["host"] == reporting.UNNAMED_HOST
    assert found.config["data"]["root"] is None
    assert not re.search(r'"/(?!/)[a-z]+/', json.dumps(found.config | {"command": found.command}))


@pytest.mark.parametrize("file", PORTABLE, ids=named)
def test_a_portable_record_is_the_native_one_with_other_rounding_from_a_clean_commit(
    file: Path,
) -> None:
    native, portable = (document.parse(f.read_bytes()) for f in (native_of(file), file))
    assert portable.config["data"]["root"] is None
    assert not re.search(r'[" =]/(?!/)|:///', json.dumps(portable.config) + f" {portable.command}")
    knobs = document.differing_knobs(native.config, portable.config)
    assert {k: pair for k, pair in knobs.items() if k != "device"} == {
        "arithmetic": ("native", "portable")
    }
    assert native.trace is not None
    assert portable.trace is not None
    assert accuracy_gap(native.trace, portable.trace) <= accuracy_band(native.trace)
    assert (portable.code.dirty, portable.code.patch) == ("false", None)
    assert portable.machine["host"] == reporting.UNNAMED_HOST


def native_of(file: Path) -> Path:
    return next(native for native in RECORDS if portable_of(native) == file)


def one_of_each(files: list[Path]) -> list[Path]:
    return [file for file in files if named(file) in ONE_OF_EACH]


@slow
@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("file", one_of_each(RECORDS), ids=named)
def test_a_record_is_reproduced_on_this_processor(file: Path, digitlab: Cli) -> None:
    verdict = json.loads(digitlab("reproduce", str(file), "--json").out)
    assert verdict["kind"] in ("IDENTICAL", "SAME COMPUTATION, OTHER ROUNDING"), verdict


@in_ci
@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("file", one_of_each(PORTABLE), ids=named)
def test_a_portable_record_is_identical_on_every_processor(file: Path, digitlab: Cli) -> None:
    verdict = json.loads(digitlab("reproduce", str(file), "--json").out)
    assert verdict["kind"] == "IDENTICAL", verdict
