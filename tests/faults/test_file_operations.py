"""Every operation on a file fails, for a full disk and a broken one, or is the last of its process.

After SQLite's manner: the Nth, for N = 1, 2, ... until a command passes untouched.
"""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.aftermath import check_record, check_store, end_of_study, recover, repeat
from tests.faults.conftest import NewHome
from tests.faults.disk import KILL, FailingDisk
from tests.faults.loop import Loop, numbers, of_the_day
from tests.support.cli import LEVEL, Cli, in_ci, start

pytestmark = pytest.mark.fault("loop")
SHORT = ["study=faults", "record.plots=never", "checkpoint.every_steps=10"]
RUN = ["train", *SHORT, "epochs=2"]
SWEEP = ["sweep", *SHORT, "epochs=1", "seed=0,1", "workers=1"]
FAULTS = {  # the error, and whether all further operations meet it, too
    "ENOSPC": (errno.ENOSPC, False),
    "EIO": (errno.EIO, False),
    "kill -9": (KILL, False),
    "ENOSPC from then on": (errno.ENOSPC, True),
    "EIO from then on": (errno.EIO, True),
}
PARTS = 2  # that may run side by side
LASTING_STEP = 5  # an error that lasts is another mostly where something else is done next
SWEEP_STEP = 16  # a sweep takes longer, and most of what it does is done by its runs
SAMPLE, SWEEP_SAMPLE = 2, 1  # of a fault in CI


def run_once(
    line: list[str], home: Path, disk: FailingDisk, number: int, fault: str, only: str = ""
) -> tuple[int, str]:
    error, lasts = FAULTS[fault]
    with disk.failing(home, number, error, lasts=lasts, only=only):
        process = start(line, **disk.environment)
        _, said = process.communicate(timeout=120)
    return process.returncode, said


def check_run(home: Path, scratch: Path, code: int, said: str, digitlab: Cli) -> None:
    """After RUN and whatever befell it: nothing is damaged, and its user can go on."""
    assert "Traceback" not in said
    assert code in (0, 1, 2, -signal.SIGKILL)
    check_record(home, scratch)
    check_store(home / "mlruns" / "mlflow.db")
    recover(code, RUN, digitlab)


@in_ci
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS) if LEVEL != "ci" else [0])
@pytest.mark.parametrize("fault", FAULTS)
def test_in_a_run(
    fault: str,
    part: int,
    disk: FailingDisk,
    new_home: NewHome,
    tmp_path: Path,
    digitlab: Cli,
    record_property: Callable[[str, object], None],
) -> None:
    home = new_home()
    code, said = run_once(RUN, home, disk, 0, fault)
    assert code == 0, said
    expected = end_of_study(home / "mlruns" / "mlflow.db", "faults")
    loop = Loop(f"a run's file operations: {fault}", record_property)
    step = PARTS * (LASTING_STEP if FAULTS[fault][1] else 1)
    for number in numbers(fault, disk.count, sample=SAMPLE, part=part, step=step):
        home = new_home()
        code, said = run_once(RUN, home, disk, number, fault)
        if not disk.hit:
            break
        with loop.survives(f"{number}, {disk.hit}: exit code {code}\n{said}"):
            check_run(home, tmp_path, code, said, digitlab)
            assert end_of_study(home / "mlruns" / "mlflow.db", "faults") == expected
        shutil.rmtree(home)
    loop.end()


@in_ci
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", of_the_day(FAULTS, 1))
def test_in_a_sweep(
    fault: str,
    disk: FailingDisk,
    new_home: NewHome,
    tmp_path: Path,
    digitlab: Cli,
    record_property: Callable[[str, object], None],
) -> None:
    home = new_home()
    code, said = run_once(SWEEP, home, disk, 0, fault)
    assert code == 0, said
    expected = end_of_study(home / "mlruns" / "mlflow.db", "faults")
    assert len(expected) == 2
    loop = Loop(f"a sweep's file operations: {fault}", record_property)
    name = f"sweep {fault}"
    for number in numbers(name, disk.count, sample=SWEEP_SAMPLE, step=SWEEP_STEP):
        home = new_home()
        code, said = run_once(SWEEP, home, disk, number, fault)
        if not disk.hit:
            break
        with loop.survives(f"{number}, {disk.hit}: exit code {code}\n{said}"):
            assert "Traceback" not in said
            check_record(home, tmp_path)
            check_store(home / "mlruns" / "mlflow.db")
            repeat(SWEEP, digitlab)
            assert end_of_study(home / "mlruns" / "mlflow.db", "faults") == expected
        shutil.rmtree(home)
    loop.end()


@pytest.mark.fault("F6", "F12")
@pytest.mark.parametrize(
    ("only", "error"),
    [
        pytest.param("/artifacts/.config.yaml", "ENOSPC", id="the configuration is half written"),
        pytest.param("write mlruns/records", "ENOSPC", id="the record cannot be made"),
        pytest.param("/artifacts/predictions.parquet", "EIO", id="Arrow cannot write"),
        pytest.param("/artifacts/weights.safetensors", "EIO", id="the weights cannot be written"),
    ],
)
def test_a_failure_of_the_disk_is_told_and_leaves_no_trace_in_what_goes_on(
    only: str, error: str, disk: FailingDisk, new_home: NewHome, tmp_path: Path, digitlab: Cli
) -> None:
    home = new_home()
    assert digitlab(*RUN).code == 0
    expected = end_of_study(home / "mlruns" / "mlflow.db", "faults")
    home = new_home()
    code, said = run_once(RUN, home, disk, 1, error, only)
    assert disk.hit
    assert code == 1
    assert os.strerror(FAULTS[error][0]) in said
    check_run(home, tmp_path, code, said, digitlab)
    assert end_of_study(home / "mlruns" / "mlflow.db", "faults") == expected


@pytest.mark.fault("F1")
def test_what_a_kill_left_half_written_is_no_artifact(
    disk: FailingDisk, new_home: NewHome, tmp_path: Path, digitlab: Cli
) -> None:
    home = new_home()
    assert digitlab(*RUN).code == 0
    expected = end_of_study(home / "mlruns" / "mlflow.db", "faults")
    home = new_home()
    code, said = run_once(RUN, home, disk, 2, "kill -9", "rename mlruns/records")
    assert code == -signal.SIGKILL
    assert list(home.glob("mlruns/records/*/artifacts/.*.tmp"))
    check_run(home, tmp_path, code, said, digitlab)
    assert end_of_study(home / "mlruns" / "mlflow.db", "faults") == expected
