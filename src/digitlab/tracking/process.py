"""A process of this machine or another, and whether it is dead."""

import dataclasses
import functools
import os
import socket
from pathlib import Path

import psutil


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """A process by everything that tells it from a later one with the same number."""

    host: str
    boot_id: str
    pid: int
    started: str  # clock ticks since boot; where there is no /proc, seconds since the epoch

    def is_dead(self) -> bool:
        """Whether it certainly no longer runs; of another host's processes nothing is certain."""
        if self.host != socket.gethostname():
            return False
        if self.boot_id != _boot_id():
            return True
        try:
            is_zombie = psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
            return is_zombie or _started(self.pid) != self.started
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def this_process() -> Process:
    return Process(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid=os.getpid(),
        started=_started(os.getpid()),
    )


@functools.cache
def _boot_id() -> str:
    """Changes with every start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def _started(pid: int) -> str:
    """When a process started. Ticks since boot, since wall-clock times move when the clock is set."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[19]  # field 22 of proc(5), after the name in parentheses
    except OSError:
        return str(round(psutil.Process(pid).create_time()))
