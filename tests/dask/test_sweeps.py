"""Sweeps on a real Dask: workers come and go, controllers die, and no bit changes."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.dask.cluster import DaskCluster
from tests.support.cli import Start, in_ci, slow
from tests.support.processes import is_training, wait_for
from tests.support.sweeps import (
    check_whole,
    end_of,
    num_begun_before,
    num_started,
    sweep_of,
    undisturbed,
)

EPOCHS = 20
SWEEP = ["sweep", "model=cnn", f"epochs={EPOCHS}", "checkpoint.every_seconds=0.2", "seed=0,1,2"]
SWEEP += ["record.plots=never"]
CHUNKS = ["sweep", "epochs=3", "data.order_seed=0", "seed=range(4)", "record.plots=never"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), SWEEP)


@pytest.fixture
def controller(cluster: DaskCluster, home: Path, digitlab_process: Start) -> subprocess.Popen[str]:
    """Of a sweep with a trial in training on each worker."""
    process = digitlab_process(
        *SWEEP, "executor=dask", f"executor.scheduler={cluster.address}", "study=sweep"
    )
    wait_for(lambda: is_training(home, 2), "a trial trains on each worker", 120)
    return process


@in_ci
def test_trials_side_by_side_on_a_scheduler_of_its_own(
    home: Path, digitlab_process: Start, tmp_path: Path
) -> None:
    line = [*CHUNKS, "engine=fused", "executor=dask", "workers=2", "study=sweep"]
    code, output = end_of(digitlab_process(*line))
    assert code == 0, output
    (tmp_path / "alone").mkdir()
    check_whole(home, undisturbed(tmp_path / "alone", [*CHUNKS, "engine=sequential"]), epochs=3)


@in_ci
def test_a_worker_that_dies_costs_no_trial_and_another_takes_its_place(
    cluster: DaskCluster, home: Path, controller: subprocess.Popen[str], expected: dict[str, str]
) -> None:
    broken_at = time.time()
    cluster.kill(cluster.workers[0])
    cluster.add_worker()
    code, output = end_of(controller)
    assert code == 0, output
    check_whole(home, expected, epochs=EPOCHS)
    assert num_begun_before(broken_at, home) == 2, "it went on at its checkpoint"
    assert num_started(home) == [1, 1, 1]


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGKILL, marks=slow), pytest.param(signal.SIGHUP, marks=slow)]
)
def test_jobs_outlive_their_controller_and_are_attached_to(
    number: int,
    home: Path,
    controller: subprocess.Popen[str],
    digitlab_process: Start,
    expected: dict[str, str],
) -> None:
    controller.send_signal(number)
    end_of(controller)
    code, output = end_of(digitlab_process("resume", sweep_of(home).name))
    assert code == 0, output
    assert "attached to" in output
    check_whole(home, expected, epochs=EPOCHS)
    assert num_started(home) == [1, 1, 1]


@slow
def test_ctrl_c_stops_after_the_running_step(
    home: Path,
    controller: subprocess.Popen[str],
    digitlab_process: Start,
    expected: dict[str, str],
) -> None:
    broken_at = time.time()
    os.killpg(controller.pid, signal.SIGINT)
    code, output = end_of(controller)
    assert code == 128 + signal.SIGINT, output
    code, output = end_of(digitlab_process("resume", sweep_of(home).name))
    assert code == 0, output
    check_whole(home, expected, epochs=EPOCHS)
    assert num_begun_before(broken_at, home) == 2, "they went on at their checkpoints"


@slow
def test_a_scheduler_that_dies_costs_no_trial(
    cluster: DaskCluster,
    home: Path,
    controller: subprocess.Popen[str],
    digitlab_process: Start,
    expected: dict[str, str],
) -> None:
    cluster.end()
    code, output = end_of(controller)
    assert code == 1, output
    code, output = end_of(digitlab_process(*SWEEP, "executor=processes", "study=sweep"))
    assert code == 0, output
    check_whole(home, expected, epochs=EPOCHS)


@slow
def test_a_search_with_a_pruner(cluster: DaskCluster, home: Path, digitlab_process: Start) -> None:
    line = ["sweep", "optimizer.learning_rate=tag(log,interval(1e-6,1e-1))", "epochs=12", "trials=8"]
    line += ["sweep.search=tpe", "sweep.pruner=median", "study=sweep", "executor=dask"]
    code, output = end_of(digitlab_process(*line, f"executor.scheduler={cluster.address}"))
    assert code == 0, output
    assert num_started(home) == [1] * 8
