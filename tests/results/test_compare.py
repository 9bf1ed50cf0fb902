"""`digitlab compare`: which runs are meant, what the table says, and which differences are real."""

import csv
import io
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from digitlab.results.compare.groups import Group, best, finished_once, group_by_seed, ranked
from digitlab.results.compare.significance import Finding
from digitlab.results.report.contents import leads
from digitlab.results.report.knob_pictures import draw_against_knob
from digitlab.results.tables import latex_table
from digitlab.runs.artifacts import Answers
from digitlab.runs.plots import draw_disagreements
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun
from tests.support.cli import CHECKOUT, Cli

QUICK = ("epochs=1", "study=s", "executor=inprocess")


def stored(number: int, **changes: Any) -> StoredRun:
    params = {"model.name": "cnn", "optimizer.learning_rate": "0.1", "seed": "0", "run_name": "x"}
    metrics = {"test/accuracy": 0.9, "chosen/validation_accuracy": 0.8}
    return StoredRun(
        run_id=f"{number:032x}",
        experiment_id="1",
        study="s",
        name=f"run {number}",
        status="FINISHED",
        start_time=number,
        end_time=number + 1,
        params=params | changes.pop("params", {}),
        metrics=metrics | changes.pop("metrics", {}),
        tags={"digitlab.data.test_images": "a"} | changes.pop("tags", {}),
        artifact_uri="",
        **changes,
    )


def of(groups: list[Group]) -> list[list[int]]:
    return [[int(run.run_id, 16) for run in group.runs] for group in groups]


def test_runs_that_differ_in_their_seed_only_are_one_group() -> None:
    runs = [
        stored(1, params={"seed": "10"}),
        stored(2, params={"seed": "9", "run_name": "other", "data.root": "elsewhere"}),
        stored(3, params={"optimizer.learning_rate": "0.01"}),
        stored(4, tags={"digitlab.data.test_images": "other images"}),
    ]
    groups = group_by_seed(runs)
    assert of(groups) == [[2, 1], [3], [4]]  # by seed as a number, not as text
    assert groups[0].knobs == {"optimizer.learning_rate": "0.1"}
    assert of(group_by_seed(runs, each=True)) == [[1], [2], [3], [4]]


def test_a_repetition_is_no_new_seed() -> None:
    original, again = stored(1), stored(2)
    reproduction = stored(3, tags={"digitlab.reproduces": original.run_id})
    runs, notes = finished_once([reproduction, original, again, stored(4, params={"seed": "1"})])
    assert [int(run.run_id, 16) for run in runs] == [2, 4]
    (note,) = notes
    assert note.startswith("Left out: 2 runs with the seed, knobs, code and rounding of another")


def test_groups_are_ranked_by_their_mean_and_ties_share_the_best() -> None:
    runs = [
        stored(n, params={"batch_size": str(n)}, metrics={"test/loss": loss, "test/accuracy": accuracy})
        for n, (loss, accuracy) in enumerate([(0.3, 0.9), (0.1, 0.9), (0.2, 0.5)])
    ]
    groups = group_by_seed(runs)
    assert of(ranked(groups, "test/loss")) == [[1], [2], [0]]
    assert of(best(groups, "test/accuracy")) == [[0], [1]]
    assert of(best(groups, "test/loss")) == [[1]]
    assert best(groups, "validation/loss") == []


def test_a_sweep_is_compared_by_groups_of_seeds(digitlab: Cli) -> None:
    sweep = digitlab("sweep", "optimizer.learning_rate=0.0001,0.01", "seed=range(3)", *QUICK)
    sweep_id = json.loads(digitlab("sweeps", "--json").out)[0]["id"]
    assert sweep.code == 0
    found = json.loads(digitlab("compare", sweep_id, "--json").out)
    assert [row["knobs"]["optimizer.learning_rate"] for row in found["rows"]] == [0.01, 0.0001]
    assert [row["seeds"] for row in found["rows"]] == [["0", "1", "2"]] * 2
    (one,) = found["comparisons"]
    assert one["test"] == "paired t-test over 3 seeds"
    assert one["is_real"]
    assert one["difference"] < -0.1
    assert one["interval"][0] < one["difference"] < one["interval"][1]
    # The same by its name, by its own run, and as the study that it is all of.
    own_run = RunStore(resolve_uri(None)).with_tag("digitlab.sweep", sweep_id)
    assert own_run is not None
    for name in ("learning_rate x seed", own_run.run_id[:10], "s"):
        assert json.loads(digitlab("compare", name, "--json").out) == found, name


def test_other_code_and_other_rounding_are_other_rows(
    digitlab: Cli, home: Path, tmp_path: Path
) -> None:
    """Of source that decides a number; the rest of it (here a command) and comments may change."""
    line = ["sweep", "model=cnn", "seed=range(2)", *QUICK]
    assert digitlab(*line).code == 0

    def elsewhere(*arguments: str, **environment: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "digitlab.cli", *arguments],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "DIGITLAB_HOME": str(home), **environment},
        )
        assert done.returncode == 0, done.stderr

    shutil.copytree(CHECKOUT / "src", tmp_path / "src")
    for name, line_more in (("cli/train.py", "MORE = 1"), ("models/cnn.py", "# one line more")):
        with (tmp_path / "src" / "digitlab" / name).open("a") as file:
            file.write(f"{line_more}\n")
    elsewhere("train", "model=cnn", "seed=1", *QUICK[:2], PYTHONPATH=str(tmp_path / "src"))
    found = json.loads(digitlab("compare", "s", "--json").out)
    assert [row["seeds"] for row in found["rows"]] == [["0", "1"]], "the third is a true repetition"
    assert "Left out: 1 run with the seed, knobs, code and rounding" in "\n".join(found["notes"])

    models = tmp_path / "src" / "digitlab" / "models" / "cnn.py"
    models.write_text(
        models.read_text().replace("functional.relu(features)", "functional.gelu(features)")
    )
    elsewhere(*line, PYTHONPATH=str(tmp_path / "src"))
    new, old = (sweep["id"] for sweep in json.loads(digitlab("sweeps", "--json").out))
    found = json.loads(digitlab("compare", old, new, "--json").out)
    assert [row["seeds"] for row in found["rows"]] == [["0", "1"]] * 2
    first, second = (row["knobs"]["code"] for row in found["rows"])
    assert re.fullmatch(r"models/cnn.py [0-9a-f]{7}", first)
    assert re.fullmatch(r"models/cnn.py [0-9a-f]{7}", second)
    assert first != second
    (note,) = (note for note in found["notes"] if "code that decides numbers" in note)
    assert note.startswith("The code that decides numbers differs: models/cnn.py (")
    assert f"code={first}" in digitlab("compare", old, new).out

    elsewhere("train", "model=cnn", "seed=0", *QUICK[:2], ATEN_CPU_CAPABILITY="default")
    found = json.loads(digitlab("compare", "s", "--json").out)
    assert sorted(len(row["seeds"]) for row in found["rows"]) == [1, 2, 2]
    by_rounding = {(row["knobs"].get("rounding"), row["knobs"]["code"]) for row in found["rows"]}
    assert len(by_rounding) == 3
    (note,) = (note for note in found["notes"] if "other rounding" in note)
    assert "ATEN_CPU_CAPABILITY is default, was unset" in note


def test_two_runs_are_compared_on_the_images_that_both_were_asked(digitlab: Cli, home: Path) -> None:
    for model in ("logistic_regression", "cnn"):
        assert digitlab("train", f"model={model}", "epochs=1", "study=s").code == 0
    ids = [run["run_id"] for run in json.loads(digitlab("runs", "--json").out)]
    picture = home / "disagreements.png"
    told = digitlab("compare", *(i[:8] for i in ids), "--disagreements", str(picture), "--json")
    found = json.loads(told.out)
    right = {}
    for run_id in ids:
        (file,) = (home / "mlruns").glob(f"artifacts/s/{run_id}/artifacts/predictions.parquet")
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(file).to_pandas()
        right[run_id] = (table["label"] == table["prediction"]).to_numpy()
    first, second = (right[row["runs"][0]] for row in found["rows"])
    (one,) = found["comparisons"]
    assert one["counts"] == [int((second & ~first).sum()), int((first & ~second).sum())]
    assert one["difference"] == pytest.approx(second.mean() - first.mean())
    assert "McNemar" in one["test"]
    assert imread(picture).shape[2] == 4
    assert f"wrote {picture}" in told.err
    text = digitlab("compare", *ids).out
    assert "Is it real? Test accuracy against row 1 (logistic_regression)" in text
    assert "McNemar's test speaks of these trained models" in text
    for damage in (b"PAR1", file.read_bytes()[:2000], b""):
        file.write_bytes(damage)
        broken = digitlab("compare", *ids)
        assert (broken.code, broken.err.count("\n")) == (3, 1), broken.err
        assert f"an artifact of run {file.parents[1].name[:8]} cannot be read" in broken.err
        assert "`digitlab reproduce" in broken.err


def test_words_are_weighed_by_the_evidence() -> None:
    def finding(points: float, p: float | None) -> Finding:
        return Finding(difference=points / 100, interval=(0, 0), test="t", p=p, corrected_p=p)

    others = [
        (group_by_seed([stored(n)])[0], finding(points, p))
        for n, (points, p) in enumerate([(-2, 0.001), (-1, 0.04), (3, 0.04), (-1, 0.3), (0.5, None)])
    ]
    assert leads(others) == [
        "On the test images it is really ahead of run 0 (corrected p < 0.01).",
        "On the test images there is some evidence that it is ahead of run 1 (corrected p < 0.05).",
        "On the test images there is some evidence that it is behind run 2 (corrected p < 0.05).",
        "On the test images there is no evidence that it differs from run 3; run 4.",
    ]
    assert leads(others[:1] * 2) == [
        "On the test images it is really ahead of each of the others (corrected p < 0.01)."
    ]


def test_every_form_says_the_same(digitlab: Cli) -> None:
    digitlab("sweep", "optimizer.learning_rate=0.001,0.01", "seed=range(2)", *QUICK)
    found = json.loads(digitlab("compare", "s", "--json").out)
    rows = list(csv.DictReader(io.StringIO(digitlab("compare", "s", "--csv").out)))
    for row, wanted in zip(rows, found["rows"], strict=True):
        assert float(row["test/accuracy"]) == wanted["metrics"]["test/accuracy"]["mean"]
        assert float(row["test/accuracy ± 95 %"]) == wanted["metrics"]["test/accuracy"]["half_width"]
        assert row["runs"].split() == wanted["runs"]
    markdown = digitlab("compare", "s", "--markdown").out.splitlines()
    assert markdown[0].startswith("|  | run | learning_rate | validation | test | test loss | n |")
    assert len({line.count("|") for line in markdown[:4]}) == 1
    mean = found["rows"][1]["metrics"]["test/accuracy"]["mean"]
    assert f"{100 * mean:.2f} % ±" in markdown[3]
    assert f"{100 * mean:.2f} % ±" in digitlab("compare", "s").out.splitlines()[2]


def test_the_reference_and_the_order_can_be_chosen(digitlab: Cli) -> None:
    digitlab("sweep", "optimizer.learning_rate=0.0001,0.001,0.01", *QUICK)
    by_rate = {
        run["params"]["optimizer.learning_rate"]: run["run_id"]
        for run in json.loads(digitlab("runs", "--json").out)
    }
    arguments = ("compare", "s", "--sort", "test/loss", "--against", by_rate[0.001][:10])
    found = json.loads(digitlab(*arguments, "--json").out)
    assert [row["knobs"]["optimizer.learning_rate"] for row in found["rows"]] == [
        0.01,
        0.001,
        0.0001,
    ]
    assert [(one["first"], one["second"]) for one in found["comparisons"]] == [(2, 1), (2, 3)]
    better, worse = (one["difference"] for one in found["comparisons"])
    assert better > 0 > worse
    flattered = digitlab("compare", "s", "--sort", "test/accuracy").out
    assert "picked by its test result, which flatters it" in flattered
    assert "flatters" not in digitlab("compare", "s").out


def test_differences_name_knobs_code_data_and_arithmetic(digitlab: Cli) -> None:
    digitlab("train", "epochs=1", "study=s", "threads=1", "seed=0")
    store = f"tracking.uri={resolve_uri(None)}"
    other = ("threads=2", "seed=1", "data.split_seed=7", store, "device=cpu", "run_name=x")
    digitlab("train", "epochs=1", "study=s", *other)
    one, other = (run["run_id"] for run in json.loads(digitlab("runs", "--json").out))
    text = digitlab("compare", one, other, "--diff").out
    for section in ("knobs", "data", "arithmetic"):
        assert f"\n{section}\n" in text
    found = json.loads(digitlab("compare", one, other, "--diff", "--json").out)["differences"]
    values = {(entry["section"], entry["name"]): sorted(entry["values"]) for entry in found}
    assert values["knobs", "seed"] == ["0", "1"]
    assert values["knobs", "data.split_seed"] == ["0", "7"]
    assert values["arithmetic", "threads"] == ["1", "2"]
    assert ("data", "data.validation_indices") in values
    assert ("data", "data.test_images") not in values
    assert not [key for key in values if key[0] in ("versions", "machine")]
    assert {name for section, name in values if section == "knobs"} == {
        "seed",
        "threads",
        "data.split_seed",
    }


def test_mistakes_are_told(digitlab: Cli, home: Path) -> None:
    digitlab("train", "epochs=1", "study=s")
    digitlab("train", "epochs=1", "study=failing", "optimizer=sgd", "optimizer.learning_rate=1e38")
    for arguments, message in (
        (("nobody",), "'nobody' is no run, sweep or study in this store"),
        (("",), "'' is no run, sweep or study in this store"),
        (("s", "--sort", "accuracy"), "a metric is one of validation/accuracy, validation/loss"),
        (("s", "--against", "ffff"), "'ffff' is no run, sweep or study"),
        (("failing",), "failing: nothing has FINISHED there (FAILED)"),
        (("s", "--disagreements", "out.png"), "takes two models, got 1 rows"),
    ):
        result = digitlab("compare", *arguments)
        assert (result.code, message in result.err) == (2, True), result.err
    assert digitlab("compare").code == 2
    assert "did you mean failing?" in digitlab("compare", "failings").err
    assert "One row: name another run" in digitlab("compare", "s").out
    both = digitlab("compare", "s", "failing")
    assert both.code == 0
    assert "Left out: 1 FAILED; only FINISHED runs are compared." in both.out


def test_an_ambiguous_word_is_asked_about(digitlab: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    digitlab("train", "epochs=1", "study=s")
    digitlab("sweep", "seed=1,2", *QUICK)
    (sweep,) = json.loads(digitlab("sweeps", "--json").out)
    monkeypatch.setattr(RunStore, "find", lambda self, prefix: stored(1))
    result = digitlab("compare", sweep["id"])
    assert result.code == 2
    assert "is the start of a run's id" in result.err


def test_the_sheet_shows_each_kind_of_disagreement(tmp_path: Path) -> None:
    generator = random.Random(0)
    labels = np.array([generator.randrange(10) for _ in range(300)])
    first, second = labels.copy(), labels.copy()
    first[:100] = (labels[:100] + 1) % 10  # only B is right on 100, only A on 3, neither on 2
    second[100:103] = (labels[100:103] + 1) % 10
    first[103:105], second[103:105] = (labels[103:105] + 1) % 10, (labels[103:105] + 2) % 10
    losses = np.array([generator.random() for _ in range(300)])
    images = np.zeros((300, 28, 28), dtype=np.uint8)
    count = draw_disagreements(
        Answers(labels, first, losses),
        Answers(labels, second, losses),
        images,
        [str(n) for n in range(10)],
        names=("one with two $dollar$ signs", "other"),
        file=tmp_path / "sheet.png",
    )
    assert count == 105
    assert imread(tmp_path / "sheet.png").shape[1] == 990


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, each after a check that its titles are whole."""
    figures: list[Figure] = []

    def whole(figure: Figure, file: Path, **options: Any) -> None:
        figure.draw_without_rendering()
        for axes in figure.axes:
            texts = (axes.title, axes.xaxis.label, axes.yaxis.label)
            for text in (one for one in texts if one.get_text()):
                box = text.get_window_extent()
                assert figure.bbox.x0 <= box.x0, text
                assert box.x1 <= figure.bbox.x1, text
                assert box.y1 <= figure.bbox.y1, text
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", whole)
    return figures


def test_titles_are_never_cut_off(drawn: list[Figure], tmp_path: Path) -> None:
    digits = [str(n) for n in range(10)]
    labels = np.arange(20) % 10
    some = Answers(labels, (labels + 1) % 10, np.ones(20))
    images = np.zeros((20, 28, 28), dtype=np.uint8)
    name = "A LONG NAME OF THIRTY-SIX CHARACTERS (12345678)"
    for count in (2, 20):
        one = Answers(*(values[:count] for values in (labels, labels, np.ones(20))))
        other = Answers(*(v[:count] for v in (some.labels, some.predictions, some.losses)))
        draw_disagreements(one, other, images, digits, names=(name, name), file=tmp_path / "sheet.png")
    assert len(drawn) == 2


def test_a_knobs_figure_says_what_is_drawn(drawn: list[Figure], tmp_path: Path) -> None:
    runs = [
        stored(
            10 * n + seed,
            params={"optimizer.learning_rate": rate, "seed": str(seed)},
            metrics={"chosen/validation_accuracy": 0.8 + seed / 100},
        )
        for n, rate in enumerate(["0.1", "0.01"])
        for seed in range(3 - n)
    ]
    groups = group_by_seed(runs)
    draw_against_knob(groups, "optimizer.learning_rate", "validation/accuracy", tmp_path / "a.png")
    draw_against_knob(groups[:1], "optimizer.learning_rate", "test/loss", tmp_path / "a.png")
    lost = stored(
        99,
        params={"optimizer.learning_rate": "9", "seed": "0"},
        metrics={"chosen/validation_accuracy": 0.1},
    )
    groups = group_by_seed([*runs, lost])
    draw_against_knob(groups, "optimizer.learning_rate", "validation/accuracy", tmp_path / "a.png")
    first, empty, cut = drawn
    assert cut.get_supxlabel().endswith("; not shown: 1 of 3 means, 10")
    assert empty.get_supxlabel() == "no run has a test/loss"
    (axes,) = first.axes
    assert axes.get_title() == "validation accuracy by learning rate (optimizer)"
    assert axes.get_xlabel() == "learning rate (optimizer)"
    assert axes.get_ylabel() == "validation accuracy (%)"
    assert first.get_supxlabel() == (
        "bars: 95 % interval of the mean over 2 to 3 seeds; line: the best of each value"
    )


def test_a_thesis_gets_vector_figures_and_tables_in_latex(digitlab: Cli, home: Path) -> None:
    digitlab(
        "sweep", "optimizer.learning_rate=0.001,0.01", "run_name='50 %_{a}'", "seed=range(2)", *QUICK
    )
    assert digitlab("report", "s", "-o", str(home / "out"), "--vector", "pdf").code == 0
    written = {file.name for file in (home / "out").iterdir()}
    pictures = {name.removesuffix(".png") for name in written if name.endswith(".png")}
    assert {f"{name}.pdf" for name in pictures} <= written
    assert (home / "out" / "learning_curves.pdf").read_bytes().startswith(b"%PDF")
    table = (home / "out" / "table.tex").read_text()
    assert table == digitlab("compare", "s", "--latex").out
    lines = [line for line in table.splitlines() if not line.startswith("%")]
    assert lines[0].startswith(r"\begin{tabular}{llll")
    assert lines[2].startswith(r" & run & learning\_rate & validation & test")
    assert r" \% $\pm$ " in lines[4]
    told = digitlab("compare", "s").out
    assert "the ± of two is 12.7 standard errors" in " ".join(told.split())
    assert "Real: corrected p below 0.01; some evidence: below 0.05" in " ".join(told.split())


def test_latex_takes_no_sign_for_a_command() -> None:
    lines = latex_table([["a_b", "50 % & {x}"], [r"\input", "$^~#<>"]]).splitlines()
    assert lines[2] == r"a\_b & 50 \% \& \{x\} \\"
    assert lines[4] == r"\textbackslash{}input & \$\textasciicircum{}\textasciitilde{}\#$<$$>$ \\"
