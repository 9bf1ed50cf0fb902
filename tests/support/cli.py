"""The command line as tests call it: in this process, or in one of its own."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from digitlab.tracking.connection.location import file_path
from tests.support.zygote import AT_THE_START, Forked

CHECKOUT = Path(__file__).resolve().parents[2]
LEVEL = os.environ.get("DIGITLAB_SLOW")  # read now: a test's environment has none
slow = pytest.mark.skipif(LEVEL not in ("1", "faults"), reason="minutes: make test-all runs it")
in_ci = pytest.mark.skipif(
    LEVEL not in ("1", "ci", "faults"), reason="a minute: CI and make test-all run it"
)


@dataclass
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]
Start = Callable[..., subprocess.Popen[str]]


def heed_interrupts() -> None:
    """A shell that starts the tests in the background makes them, and their children, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(line: list[str], *, is_real: bool = False, **environment: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own; with KILL_PLACE, one that dies there."""
    is_victim = "KILL_PLACE" in environment
    return start_module(
        ["tests.kills.victim" if is_victim else "digitlab.cli", *line],
        environment,
        is_real=is_real,
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if is_victim else subprocess.PIPE,
    )


def start_module(
    line: list[str], environment: dict[str, str], *, is_real: bool = False, **options: Any
) -> subprocess.Popen[str]:
    """Start `python -m` this line, as a fork where nothing can tell the difference.

    `make test-all` starts every one for real.
    """
    options |= {"text": True, "env": {**os.environ, **environment}}
    is_alike = sys.platform == "linux" and all(
        name.startswith(("KILL_", "MLFLOW_HTTP_")) or name in AT_THE_START for name in environment
    )
    if is_real or LEVEL == "1" or not is_alike:
        command = [sys.executable, "-m", *line]
        return subprocess.Popen(command, preexec_fn=heed_interrupts, **options)
    return Forked(line, **options)


def artifact(address: str, name: str) -> Path:
    """A file of a run whose artifacts lie at this address."""
    folder = file_path(address)
    assert folder is not None
    return folder / name


@contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    """No file of this process may be longer, as on a disk that is full soon."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
