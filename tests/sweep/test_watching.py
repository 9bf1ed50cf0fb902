"""A sweep watched from its folder and from a store alone: the same numbers, at any moment of it."""

import json
import shutil
from pathlib import Path

import pytest

from digitlab.config import project
from digitlab.sweep.sweep_folder import SweepFolder
from digitlab.sweep.watching.page import page, sparkline
from digitlab.sweep.watching.snapshot import of_folder
from tests.support.cli import Cli

LINE = ("sweep", "model=logistic_regression", "epochs=2", "executor=inprocess", "record.plots=never")


@pytest.fixture
def folder(digitlab: Cli) -> SweepFolder:
    """Of four trials that have finished."""
    assert digitlab(*LINE, "optimizer.learning_rate=0.001,0.01,0.02,0.05", "sweep.name=rates").code == 0
    (made,) = project.sweeps().iterdir()
    return SweepFolder(made)


def cut_before(folder: SweepFolder, number: int) -> None:
    """The journal as it was when trial `number` had begun, and a process still owns the sweep."""
    file = folder.folder / "journal.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    ended = [k for k, line in enumerate(lines) if json.loads(line).get("event") == "ended"]
    file.write_text("".join(lines[: ended[number]]))
    folder.own()


def test_a_finished_sweep(folder: SweepFolder, digitlab: Cli) -> None:
    snapshot = of_folder(folder)
    assert (snapshot.status, snapshot.share, snapshot.seconds_left) == ("finished", 1.0, None)
    for words in (["watch"], ["watch", "rates"], ["watch", folder.id, "--once"]):
        told = digitlab(*words)
        assert told.code == 0, told.err
        assert "4/4 trials" in told.out
        assert "best so far" in told.out


def test_in_the_middle_of_it(folder: SweepFolder) -> None:
    cut_before(folder, 2)
    snapshot = of_folder(folder)
    assert snapshot.status == "running"
    assert (len(snapshot.summary.results), snapshot.num_trials) == (2, 4)
    assert snapshot.share == 0.5
    assert snapshot.seconds_left == pytest.approx(snapshot.seconds)
    assert "2/4 trials, 2 waiting" in "\n".join(part for part, _ in page(snapshot))
    folder.release()


def test_the_epochs_of_what_runs_are_read_from_its_record(folder: SweepFolder) -> None:
    from tests.support.run_folders import new_record

    cut_before(folder, 2)
    started = next(e for e in folder.events() if e["event"] == "started" and e["number"] == 2)
    record = new_record(project.records(), record_id=started["record"])
    record.log_metrics({"validation/accuracy": 0.75}, 1)
    snapshot = of_folder(folder)
    (one,) = snapshot.running
    assert (one.epoch, one.epochs, one.value) == (1, 2, 0.75)
    assert snapshot.share == 2.5 / 4
    text = "\n".join(part for part, _ in page(snapshot))
    assert "2/4 trials, 1 running, 1 waiting" in text
    assert "75.00 %" in text
    record.release()
    folder.release()


def test_a_sweep_of_another_machine_is_seen_through_the_store(
    folder: SweepFolder, digitlab: Cli, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = digitlab("watch").out.splitlines()
    store = f"sqlite:///{home / 'mlruns' / 'mlflow.db'}"
    there = tmp_path / "there"
    shutil.copytree(home / "conf", there / "conf")
    monkeypatch.setenv("DIGITLAB_HOME", str(there))
    told = digitlab("watch", folder.id, "--tracking-uri", store)
    assert told.code == 0, told.err
    assert "4/4 trials" in told.out
    best = [line for line in here if "0.05" in line or "0.02" in line]
    assert best
    assert all(line in told.out.splitlines() for line in best)


def test_mistakes_are_told(digitlab: Cli) -> None:
    assert "digitlab sweeps" in digitlab("watch").err
    assert digitlab("watch").code == 2


def test_a_curve_shows_first_and_last_and_never_too_much() -> None:
    assert sparkline([0.5]) == "▁"
    assert sparkline([1.0, 2.0]) == "▁█"
    assert len(sparkline([*map(float, range(10_000))])) == 60
