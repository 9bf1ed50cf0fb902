"""Sweeps on a real SLURM: what breaks on the way loses nothing that was finished and changes no bit."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.support.cli import Cli, Start, in_ci, slow
from tests.support.processes import is_training
from tests.support.sweeps import (
    check_whole,
    end_of,
    num_begun_before,
    num_started,
    sweep_of,
    tree,
    undisturbed,
)

EPOCHS = 20
SWEEP = ["sweep", "model=cnn", f"epochs={EPOCHS}", "checkpoint.every_seconds=0.2", "seed=0,1,2,3"]
SWEEP += ["record.plots=never"]
ON_SLURM = [*SWEEP, "executor=slurm", "workers=2", "study=sweep"]
CHUNKS = ["sweep", "epochs=3", "data.order_seed=0", "seed=range(4)", "record.plots=never"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), SWEEP)


@pytest.fixture
def controller(cluster: Cluster, home: Path, digitlab_process: Start) -> subprocess.Popen[str]:
    """Of a sweep with a trial in training on each node."""
    process = digitlab_process(*ON_SLURM)
    cluster.wait_for(lambda: is_training(home, 2), "a trial trains on each node")
    return process


def states_of_all_jobs(cluster: Cluster) -> str:
    """Those of before a job was queued again, too."""
    return cluster.run("sacct", "--noheader", "--allocations", "--duplicates", "--format=State%20")


@in_ci
def test_trials_side_by_side(
    cluster: Cluster, home: Path, digitlab_process: Start, tmp_path: Path
) -> None:
    line = [*CHUNKS, "engine=fused", "executor=slurm", "workers=2", "study=sweep"]
    code, told = end_of(digitlab_process(*line))
    assert code == 0, told
    (tmp_path / "alone").mkdir()
    check_whole(home, undisturbed(tmp_path / "alone", [*CHUNKS, "engine=sequential"]), epochs=3)
    assert cluster.jobs() == {}


@pytest.mark.parametrize(
    ("number", "goes_on"),
    [
        pytest.param(signal.SIGKILL, "at once", marks=in_ci),
        pytest.param(signal.SIGKILL, "when all has ended", marks=slow),
        pytest.param(signal.SIGTERM, "at once", marks=slow),
        pytest.param(signal.SIGHUP, "at once", marks=slow),
    ],
)
def test_jobs_outlive_their_controller_and_are_attached_to(
    number: int,
    goes_on: str,
    cluster: Cluster,
    home: Path,
    controller: subprocess.Popen[str],
    digitlab_process: Start,
    expected: dict[str, str],
) -> None:
    controller.send_signal(number)
    end_of(controller)
    assert len(cluster.jobs()) > 2
    if goes_on == "when all has ended":
        cluster.wait_for(lambda: cluster.jobs() == {}, "no job is left", seconds=200)
    code, told = end_of(digitlab_process("resume", sweep_of(home).name))
    assert code == 0, told
    assert ("attached to" if goes_on == "at once" else "4 of them ended before") in told
    check_whole(home, expected, epochs=EPOCHS)
    assert num_started(home) == [1, 1, 1, 1]


@slow
def test_a_node_that_dies_costs_no_trial(
    cluster: Cluster, home: Path, controller: subprocess.Popen[str], expected: dict[str, str]
) -> None:
    broken_at = time.time()
    cluster.kill_node("n2")
    cluster.await_state("n2", "down*")
    cluster.start_node("n2")
    code, told = end_of(controller)
    assert code == 0, told
    check_whole(home, expected, epochs=EPOCHS)
    assert num_begun_before(broken_at, home) == 2, "it went on at its checkpoint"
    assert "NODE_FAIL" in states_of_all_jobs(cluster)
    assert num_started(home) == [1, 1, 1, 1]


@slow
def test_a_job_that_is_cancelled_costs_its_own_trial_until_the_same_command_again(
    cluster: Cluster,
    home: Path,
    controller: subprocess.Popen[str],
    digitlab_process: Start,
    expected: dict[str, str],
) -> None:
    broken_at = time.time()
    cancelled = next(job for job, state in cluster.jobs().items() if state == "RUNNING")
    cluster.run("scancel", cancelled)
    code, told = end_of(controller)
    assert code == 1
    assert "CANCELLED" in told
    assert sorted(run.status for run in tree("sweep")[1]) == ["FINISHED"] * 3 + ["KILLED"]
    code, told = end_of(digitlab_process(*ON_SLURM))
    assert code == 0, told
    check_whole(home, expected, epochs=EPOCHS)
    assert num_begun_before(broken_at, home) == 2, "it went on at its checkpoint"


@slow
def test_a_job_whose_time_is_up_is_queued_again(
    cluster: Cluster, home: Path, controller: subprocess.Popen[str], expected: dict[str, str]
) -> None:
    broken_at = time.time()
    job = cluster.run("squeue", "--noheader", "--nodelist=n1", "--format=%i").strip()
    (process,) = cluster.processes_on("n1")
    process.suspend()  # slower than its time limit; SLURM's warning wakes it
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    code, told = end_of(controller)
    assert code == 0, told
    check_whole(home, expected, epochs=EPOCHS)
    assert num_begun_before(broken_at, home) == 2, "it went on at its checkpoint"
    assert "REQUEUED" in states_of_all_jobs(cluster)
    assert num_started(home) == [1, 1, 1, 1]


@slow
def test_preempted_jobs_are_queued_again(
    cluster: Cluster, home: Path, controller: subprocess.Popen[str], expected: dict[str, str]
) -> None:
    broken_at = time.time()
    for _ in range(2):
        cluster.run("sbatch", "--partition=urgent", "--output=/dev/null", "--wrap=sleep 5")
    code, told = end_of(controller)
    assert code == 0, told
    check_whole(home, expected, epochs=EPOCHS)
    assert num_begun_before(broken_at, home) == 2, "they went on at their checkpoints"
    assert states_of_all_jobs(cluster).count("PREEMPTED") == 2
    assert num_started(home) == [1, 1, 1, 1]


@slow
def test_ctrl_c_leaves_no_job(
    cluster: Cluster,
    home: Path,
    controller: subprocess.Popen[str],
    digitlab_process: Start,
    expected: dict[str, str],
) -> None:
    broken_at = time.time()
    os.killpg(controller.pid, signal.SIGINT)
    code, told = end_of(controller)
    assert code == 128 + signal.SIGINT, told
    cluster.wait_for(lambda: cluster.jobs() == {}, "no job is left", seconds=10)
    code, told = end_of(digitlab_process("resume", sweep_of(home).name))
    assert code == 0, told
    check_whole(home, expected, epochs=EPOCHS)
    assert num_begun_before(broken_at, home) == 2, "they went on at their checkpoints"


@slow
def test_a_search_with_a_pruner(
    cluster: Cluster, home: Path, digitlab_process: Start, digitlab: Cli
) -> None:
    line = ["sweep", "optimizer.learning_rate=tag(log,interval(1e-6,1e-1))", "epochs=12"]
    line += ["sweep.search=tpe", "trials=8", "sweep.pruner=median", "workers=2"]
    code, told = end_of(digitlab_process(*line, "executor=slurm", "study=sweep"))
    assert code == 0, told
    (own,), trials = tree("sweep")
    assert own.status == "FINISHED"
    assert len(trials) == 8
    assert cluster.jobs() == {}
    finished = [run for run in trials if run.status == "FINISHED"]
    assert finished
    assert digitlab("reproduce", finished[-1].run_id).code == 0
