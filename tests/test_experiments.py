"""The experiments say what their results say; their records are whole and give nothing away."""

import importlib
import json
import re
from pathlib import Path

import pytest

from digitlab import document
from experiments import reporting
from tests.conftest import CHECKOUT

EXPERIMENTS = CHECKOUT / "experiments"
STUDIES = ("tutorial", "optimizers", "budget", "search", "rounding")
RECORDS = sorted(EXPERIMENTS.glob("*/records/*.json"))
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


def test_there_are_records_of_every_study() -> None:
    assert {file.parents[1].name for file in RECORDS} == set(STUDIES)


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: f"{file.parents[1].name}/{file.stem}")
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
