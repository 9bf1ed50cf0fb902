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

import pytest

from digitlab.tracking.connection.location import file_path

CHECKOUT = Path(__file__).resolve().parents[2]
LEVEL = os.environ.get("DIGITLAB_SLOW")  # read now: a test's environment has none
slow = pytest.mark.skipif(LEVEL != "1", reason="minutes: make test-all runs it")
in_ci = pytest.mark.skipif(LEVEL not in ("1", "ci"), reason="a minute: CI and make test-all run it")


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


def start(line: list[str], **environment: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own; with KILL_PLACE, one that dies there."""
    is_victim = "KILL_PLACE" in environment
    return subprocess.Popen(
        [sys.executable, "-m", "tests.kills.victim" if is_victim else "digitlab.cli", *line],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if is_victim else subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=heed_interrupts,
    )


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
