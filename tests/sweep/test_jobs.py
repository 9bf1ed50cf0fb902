"""What a sweep on other machines takes for granted here: devices, finished trials, jobs left behind."""

import signal
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.workers.executors.executor import TaskFailed
from digitlab.sweep.workers.executors.job import NOBODY, JobFolder, work
from digitlab.sweep.workers.executors.submitted_job import SubmittedJob, left_by_another
from tests.support.cli import Cli

SWEEP = ["sweep", "epochs=1", "seed=0,1", "study=sweep", "engine=sequential"]


def double(x: int, *, tell: Any, interrupts: Interrupts) -> int:
    return 2 * x


def fail(*, tell: Any, interrupts: Interrupts) -> None:
    raise ValueError("no such luck")


def be_ended(*, tell: Any, interrupts: Interrupts) -> str:
    """As a machine ends what runs on it; a step later."""
    interrupts.request(signal.SIGTERM)
    return "stopped at a step"


@pytest.fixture
def place(home: Path) -> Path:
    """Of the jobs of a sweep."""
    return home / "mlruns" / "sweeps" / "0a1b2c3d" / "jobs" / "slurm"


def do(folder: Path, name: str = "7") -> int | None:
    interrupts = Interrupts()
    with interrupts, interrupts.deferred():
        return work(folder, name, interrupts)


def followed(job: JobFolder) -> list[Future[Any]]:
    """The futures of its tasks, as a controller that comes now sees them."""
    seen = SubmittedJob(job, "7", [Future() for _ in job.tasks()])
    seen.follow(lambda message: None)
    return seen.futures


def test_a_job_does_its_tasks_whoever_looks(place: Path) -> None:
    job = JobFolder.create(place / "00001", [(double, (3,)), (fail, ()), (double, (4,))])
    assert do(job.folder) is None
    first, bad, last = followed(job)
    assert (first.result(0), last.result(0)) == (6, 8)
    with pytest.raises(TaskFailed, match="no such luck"):
        bad.result(0)


def test_a_job_that_is_queued_again_begins_with_the_first_task_without_a_result(place: Path) -> None:
    job = JobFolder.create(place / "00001", [(double, (3,)), (be_ended, ()), (double, (4,))])
    assert do(job.folder) == signal.SIGTERM
    first, second, third = followed(job)
    assert first.result(0) == 6
    assert second.running()
    assert not third.running()
    assert do(job.folder) == signal.SIGTERM
    said = [(line["kind"], line["task"]) for line in job.said.lines() if line]
    assert said == [("begun", 0), ("result", 0), ("begun", 1), ("begun", 1)]


def test_only_one_job_of_a_folder_begins(place: Path) -> None:
    job = JobFolder.create(place / "00001", [(double, (3,))])
    assert job.claim("7")
    do(job.folder, name="8")
    assert job.said.lines() == []
    do(job.folder, name="7")
    assert followed(job)[0].result(0) == 6


def test_a_job_whose_controller_died_before_it_was_queued_never_begins(place: Path) -> None:
    job = JobFolder.create(place / "00001", [(double, (3,))])
    assert left_by_another(job.folder) is None
    assert not job.folder.exists()
    assert do(job.folder) is None, "it may be queued all the same, and has nothing to do"
    begun = JobFolder.create(place / "00002", [(double, (3,))])
    begun.claim("9")
    attached = left_by_another(begun.folder)
    assert attached is not None
    assert attached.name == "9", "it had begun before its name was written down"
    assert NOBODY not in (begun.owner, begun.name)


def test_a_job_that_was_asked_to_stop_begins_no_task(place: Path) -> None:
    job = JobFolder.create(place / "00001", [(double, (3,))])
    job.ask_to_stop(signal.SIGINT)
    assert do(job.folder) is None
    assert job.said.lines() == []


def test_trials_that_were_finished_here_are_finished_for_a_cluster(digitlab: Cli) -> None:
    assert digitlab(*SWEEP, "executor=inprocess").code == 0
    assert "2 finished, 0 to run" in digitlab(*SWEEP, "executor=slurm", "--dry-run").out
    with_gpus = digitlab(*SWEEP, "executor=slurm", "executor.gpus=1", "--dry-run")
    assert "0 finished, 2 to run" in with_gpus.out, "a GPU rounds in another way"


def test_a_gpu_has_to_be_asked_for(digitlab: Cli) -> None:
    result = digitlab(*SWEEP, "executor=dask", "device=cuda")
    assert result.code == 2
    assert "device=cuda needs executor.gpus of at least 1, got 0" in result.err


def test_no_other_executor_takes_over_what_may_still_run(digitlab: Cli, home: Path) -> None:
    assert digitlab(*SWEEP, "executor=inprocess").code == 0
    (folder,) = (home / "mlruns" / "sweeps").iterdir()
    JobFolder.create(folder / "jobs" / "slurm" / "00001", [(double, (3,))])
    assert "detached" in digitlab("sweeps").out
    result = digitlab("resume", folder.name)
    assert result.code == 2
    assert "has jobs of another executor than inprocess" in result.err


def test_a_scheduler_that_does_not_answer_is_told_before_anything_starts(digitlab: Cli) -> None:
    result = digitlab(*SWEEP, "executor=dask", "executor.scheduler=tcp://127.0.0.1:9")
    assert result.code == 2
    assert "no Dask scheduler answers at executor.scheduler=tcp://127.0.0.1:9" in result.err
