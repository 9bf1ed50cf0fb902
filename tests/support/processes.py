"""Processes that a test has started, and what they have done so far."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from digitlab.config import project
from digitlab.tracking.run_folder import all_records


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process that works for this home, whoever its parent is."""
    found = []
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get("DIGITLAB_HOME") == str(home)
            if is_ours and process.pid != psutil.Process().pid:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Worker processes: of a session of their own."""
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.is_running() and os.getsid(child.pid) == child.pid
    ]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def is_training(home: Path, count: int = 1) -> bool:
    """Whether that many trials have logged an epoch."""
    lines = [r for r in all_records(project.records()) if r.run.parent and r.metric_lines()]
    return len(lines) >= count


def await_epochs(process: subprocess.Popen[str], count: int) -> None:
    """Wait until a run has told so many epochs."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"epoch {count}/"):
            return
    raise AssertionError("the run ended early")


def python(*arguments: str) -> str:
    """What a fresh Python prints; raises where it fails."""
    line = [sys.executable, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout
