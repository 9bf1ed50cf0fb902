"""Faults of whole commands, each a process as a user starts it: failures, two at once, many runs."""

import contextlib
import json
import signal
import sqlite3
import time
from pathlib import Path

import psutil
import pytest

from digitlab.config import project
from digitlab.tracking.run_folder import all_records
from tests.support.cli import Cli, Start, in_ci, slow
from tests.support.processes import wait_for
from tests.support.sweeps import tree

QUICK = ["record.plots=never", "executor=inprocess"]
MB = 1_000_000


def num_ended(home: Path) -> int:
    """How many trials of the only sweep have ended, by its journal."""
    return sum(
        '"ended"' in line
        for file in home.glob("mlruns/sweeps/*/journal.jsonl")
        for line in file.read_text().splitlines()
    )


@pytest.mark.fault("F5")
@pytest.mark.parametrize("option", [None, "--fail-fast"])
def test_a_trial_that_fails_is_told_at_once_and_in_the_end(
    option: str | None, digitlab_process: Start
) -> None:
    rates = "optimizer.learning_rate=0.1,1e38,0.01,0.001"
    line = ["sweep", *QUICK, "engine=sequential", "epochs=1", "optimizer=sgd", rates, "study=failing"]
    process = digitlab_process(*line, *([option] if option else []))
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "trial 1 (lr=1e+38) failed: the training loss became" in errors
    assert ("3 finished, 1 failed" in errors) == (option is None)
    statuses = [run.status for run in tree("failing")[1]]
    assert statuses[:2] == ["FINISHED", "FAILED"]
    assert statuses[2:] == ["FINISHED"] * 2 or (option and "FINISHED" not in statuses[2:])
    assert "Traceback" not in out + errors


@pytest.mark.fault("F8")
@in_ci
def test_a_store_that_another_process_has_locked(
    digitlab_process: Start, digitlab: Cli, home: Path
) -> None:
    """From the start of a run to its end and beyond: it says so, and waits on this disk."""
    assert digitlab("train", "epochs=1").code == 0
    with contextlib.closing(sqlite3.connect(home / "mlruns" / "mlflow.db")) as other:
        other.execute("begin exclusive")
        process = digitlab_process("train", "epochs=2")
        _, errors = process.communicate(timeout=120)
        other.rollback()
    assert process.returncode == 0, errors
    assert "locked" in errors or "does not answer" in errors
    assert "the run waits in" in errors
    assert [record.run.status for record in all_records(project.records())] == ["FINISHED"]
    assert digitlab("sync").code == 0
    assert [run["status"] for run in json.loads(digitlab("runs", "--json").out)] == ["FINISHED"] * 2


@pytest.mark.fault("F28")
def test_of_two_that_start_one_sweep_at_once_one_is_refused(digitlab_process: Start) -> None:
    line = ["sweep", *QUICK, "model=cnn", "epochs=8", "seed=0,1", "study=twice"]
    both = [digitlab_process(*line) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], errors
    assert any("is being worked on by another process" in text for text in errors)
    (own,), trials = tree("twice")
    assert [run.status for run in [own, *trials]] == ["FINISHED"] * 3


@pytest.mark.fault("F17")
@slow
def test_hundreds_of_runs_in_one_process_take_no_more_than_some(
    digitlab_process: Start, home: Path
) -> None:
    """Memory and open files after 50 runs and after 300, by the store's process, too."""
    process = digitlab_process("sweep", *QUICK, "epochs=1", "engine=sequential", "seed=range(0,320)")

    def taken() -> tuple[float, int]:
        whole = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        return sum(p.memory_info().rss for p in whole) / MB, sum(p.num_fds() for p in whole)

    wait_for(lambda: num_ended(home) >= 50, "50 runs", seconds=200)
    memory, files = taken()
    wait_for(lambda: num_ended(home) >= 300, "300 runs", seconds=400)
    later_memory, later_files = taken()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert (later_memory - memory) / 250 < 0.1, "MB a run"
    assert later_files <= files + 5


@pytest.mark.fault("F18")
@slow
def test_a_sweep_of_a_thousand_trials_begins_soon_and_is_cut_short_whole(
    digitlab_process: Start, digitlab: Cli, home: Path
) -> None:
    begun = time.monotonic()
    process = digitlab_process("sweep", *QUICK, "epochs=1", "seed=range(0,1001)", "study=thousand")
    assert process.stderr is not None
    assert process.stderr.readline(), "it says what it is doing"
    assert time.monotonic() - begun < 10
    wait_for(lambda: num_ended(home) >= 2, "two trials", seconds=240)
    assert psutil.Process(process.pid).memory_info().rss < 800 * MB
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    listed = digitlab("sweeps").out.splitlines()[1]
    assert "cut short" in listed
    statuses = {run.status for run in tree("thousand")[1]}
    assert statuses <= {"FINISHED", "KILLED"}
