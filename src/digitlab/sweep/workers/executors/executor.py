"""What an executor is, and how a task can end besides returning. Knows no executor by name.

A further one is a class in a file of its own, a line in table.py, its settings in sweep/settings.py and
its values in conf/executor/. tests/sweep/test_executors.py tests every one of the table.
"""

import dataclasses
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from digitlab.runs.interrupts import Interrupts

Tell = Callable[[Any], Any]  # what a task calls to say something to the controller, which answers


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the trials of a sweep need. device: `cuda` if any of them trains on a GPU. threads: of the
    trial that takes the most."""

    device: str
    threads: int


class Executor(Protocol):
    """Runs tasks. It is made with its settings and the sweep's Needs, and begins nothing by that.

    A task is a module-level function that is called with `tell` and `interrupts` besides its own
    arguments. Its future raises WorkerDied or TaskFailed where it runs in another process.
    """

    @property
    def num_workers(self) -> int:
        """Tasks that run at the same time."""

    @property
    def runs_ahead(self) -> bool:
        """Whether it takes more tasks than it has workers, so that none waits for the controller."""

    def prepare(self) -> None:
        """Begin, in the background, what takes long before the first task."""

    def start(self, tell: Tell, interrupts: Interrupts) -> None:
        """Take tasks from now on. tell: answers them, in any thread. interrupts: of this process."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run a task now, or as soon as a worker is free."""

    def interrupt(self, number: int) -> None:
        """Ask every running task to stop at its next step, as by this signal; begin no other."""

    def shutdown(self) -> None:
        """Cancel what has not begun, wait for what has, end every worker."""


class WorkerDied(Exception):  # noqa: N818  (what happened, not a mistake)
    """A worker's process ended in the middle of a task."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        if exit_code is not None and exit_code < 0:
            name = signal.Signals(-exit_code).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            super().__init__(f"its process was ended by {name}{hint}")
        else:
            super().__init__(f"its process ended with code {exit_code}")


class TaskFailed(Exception):  # noqa: N818
    """A task raised in another process; the message is its traceback."""
