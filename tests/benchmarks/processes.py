"""Commands measured as processes of their own, with the CPU time of all their descendants."""

import ctypes
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parents[2]
DIGITLAB = [sys.executable, "-m", "digitlab.cli"]
PATIENCE = 30  # seconds, with processes whose parent is gone
BASIC = ["hydra/sweeper=basic", "hydra/launcher=basic"]


@dataclass(frozen=True, slots=True)
class Cost:
    wall: float  # seconds
    cpu: float  # seconds, user and system, of the process and all its descendants
    out: str


def check_finished(environment: dict[str, str], trials: int) -> None:
    """Asks digitlab's store whether as many runs are there, FINISHED."""
    check_recorded(Path(environment["DIGITLAB_HOME"]) / "mlruns" / "mlflow.db", trials)


def check_recorded(database: Path, trials: int) -> None:
    """Asks MLflow's database itself."""
    with sqlite3.connect(database) as store:
        sweeps = "SELECT run_uuid FROM tags WHERE key = 'digitlab.kind' AND value = 'sweep'"
        query = f"SELECT count(*) FROM runs WHERE status = 'FINISHED' AND run_uuid NOT IN ({sweeps})"
        (count,) = store.execute(query).fetchone()
    assert count == trials, f"{count} of {trials} runs are finished"


@contextmanager
def home() -> Iterator[dict[str, str]]:
    """The environment of a process that finds a copy of conf/, and no runs."""
    with tempfile.TemporaryDirectory(prefix="digitlab-bench-") as scratch:
        shutil.copytree(CHECKOUT / "conf", Path(scratch) / "conf")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DIGITLAB_"))}
        yield {**inherited, "DIGITLAB_HOME": scratch}


class CommandError(Exception):
    """A measured command ended with an error, or not at all."""


def measure(
    command: list[str],
    environment: dict[str, str],
    *,
    folder: Path = CHECKOUT,
    timeout: float | None = None,
) -> Cost:
    """Files take its output: a pipe would stay open, and be waited for, until all workers are gone.

    Raises:
        CommandError: with what it has written to stderr.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        before, started = cpu_of_children(), time.perf_counter()
        try:
            done = subprocess.run(
                command, stdout=out, stderr=err, env=environment, cwd=folder, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            reap_orphans()
            raise CommandError(f"{' '.join(command)} took more than {timeout:g} s") from None
        wall = time.perf_counter() - started
        reap_orphans()
        for file in (out, err):
            file.seek(0)
        if done.returncode:
            raise CommandError(f"{' '.join(command)} ended with code {done.returncode}:\n{err.read()}")
        return Cost(wall, cpu_of_children() - before, out.read())


def cpu_of_children() -> float:
    """CPU seconds of all descendants that have ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def adopt_orphans() -> None:
    """Become the parent of descendants that outlive theirs: multiprocessing never waits for its fork
    server, whose CPU time, with that of all workers, would be nobody's."""
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0):
        sys.exit("CPU time of grandchildren cannot be measured: this needs Linux")


def reap_orphans() -> None:
    """They end by themselves as soon as they notice that their parent is gone; or are ended."""
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=PATIENCE)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return
