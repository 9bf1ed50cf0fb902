"""Real disks that are full: small file systems of every size; files that may not grow (ulimit -f)."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.aftermath import check_record, check_store, end_of_study, recover
from tests.faults.conftest import NewHome
from tests.faults.loop import Loop, numbers
from tests.support.cli import CHECKOUT, Cli, in_ci, slow, start

pytestmark = pytest.mark.fault("F12")
RUN = ["train", "study=faults", "epochs=2", "checkpoint.every_steps=10", "record.plots=never"]
STEP_KB, MOST_STEPS = 48, 60  # a run and its store take 1.5 MB


@pytest.fixture
def mount() -> Iterator[Callable[[Path, int], None]]:
    """Give a folder a file system of that many kB; of one that has one already, change the size."""
    mounted: list[Path] = []

    def run(folder: Path, kilobytes: int) -> None:
        option = f"{'remount,' * (folder in mounted)}size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", option, "digitlab-test", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a small file system is for root")
        if folder not in mounted:
            mounted.append(folder)

    yield run
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@in_ci
def test_of_every_size(
    new_home: NewHome,
    mount: Callable[[Path, int], None],
    tmp_path: Path,
    digitlab: Cli,
    record_property: Callable[[str, object], None],
) -> None:
    """Full sooner or later in a run; with more room it goes on to the same bits."""
    home = new_home()
    assert digitlab(*RUN).code == 0
    expected = end_of_study(home / "mlruns" / "mlflow.db", "faults")
    loop = Loop("F12 disks of every size", record_property)
    for number in numbers("full disk", MOST_STEPS, sample=2):
        home = new_home()
        mlruns = home / "mlruns"
        mlruns.mkdir()
        mount(mlruns, number * STEP_KB)
        process = start(RUN)
        _, said = process.communicate(timeout=120)
        code = process.returncode
        if code == 0 and "not delivered" not in said:
            break
        with loop.survives(f"{number * STEP_KB} kB: exit code {code}\n{said}"):
            assert "Traceback" not in said
            assert any(text in said for text in ("No space left", "disk is full", "disk I/O error"))
            assert code in (0, 1)
            check_record(home, tmp_path)
            check_store(mlruns / "mlflow.db")
            mount(mlruns, 100_000)
            recover(code, RUN, digitlab)
            assert end_of_study(mlruns / "mlflow.db", "faults") == expected
    loop.end()


@pytest.mark.parametrize(
    "kilobytes",
    [pytest.param(4, marks=slow), pytest.param(64, marks=in_ci), pytest.param(500, marks=slow)],
)
def test_files_that_may_not_grow(
    kilobytes: int, new_home: NewHome, tmp_path: Path, digitlab: Cli
) -> None:
    """The same for those who may not mount."""
    home = new_home()
    assert digitlab(*RUN).code == 0
    expected = end_of_study(home / "mlruns" / "mlflow.db", "faults")
    home = new_home()
    limited = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash"]
    command = [*limited, sys.executable, "-m", "digitlab.cli", *RUN]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=120)
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr or "disk" in done.stderr
    assert done.returncode in (0, 1)
    check_record(home, tmp_path)
    recover(done.returncode, RUN, digitlab)
    assert end_of_study(home / "mlruns" / "mlflow.db", "faults") == expected
