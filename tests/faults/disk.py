"""A disk of which the Nth operation fails, for real processes that work for one home.

failing_files.c is compiled and preloaded: a hook in Python would not see SQLite's and Arrow's writes.
"""

import contextlib
import ctypes
import mmap
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("failing_files.c")
COMPILER = shutil.which("gcc") or shutil.which("cc")
KILL, KILL_BOTH = 0, -1  # the process that does it dies; and its parent
ROOM = 1024


class Plan(ctypes.Structure):
    """`struct plan` of failing_files.c."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("number", "error", "lasts", "count", "failed")),
        *((name, ctypes.c_char * ROOM) for name in ("home", "only", "last", "hit")),
    )


class FailingDisk:
    """One for all processes started with `environment`; nothing fails outside `failing`."""

    def __init__(self, folder: Path) -> None:
        library, file = folder / "failing_files.so", folder / "plan"
        assert COMPILER is not None
        command = [COMPILER, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        file.write_bytes(bytes(ctypes.sizeof(Plan)))
        with file.open("r+b") as opened:
            self._plan = Plan.from_buffer(mmap.mmap(opened.fileno(), 0))
        self.environment = {"LD_PRELOAD": str(library), "FAULT_PLAN": str(file)}

    @contextlib.contextmanager
    def failing(
        self, home: Path, number: int, error: int, *, lasts: bool = False, only: str = ""
    ) -> Iterator[None]:
        """The operation of this number below a folder fails, or none if there are not so many.

        error: an errno, KILL or KILL_BOTH. lasts: all further ones fail, too.
        only: what an operation must contain to count, such as `write mlruns/records`.
        """
        plan = self._plan
        plan.number, plan.error, plan.lasts = number, error, lasts
        plan.count = plan.failed = 0
        plan.last, plan.hit, plan.only = b"", b"", only.encode()
        plan.home = str(home).encode()
        try:
            yield
        finally:
            plan.home = b""

    @property
    def count(self) -> int:
        """How many operations there were, of those that this error can befall."""
        return int(self._plan.count)

    @property
    def hit(self) -> str:
        """The operation that failed: verb and file. Empty if none did."""
        return bytes(self._plan.hit).decode()
