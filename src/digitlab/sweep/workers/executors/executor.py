"""What an executor is, and how a task can end besides returning. Knows no executor by name.

A further one is a class in a file of its own, a line in table.py, its settings in sweep/settings.py and
its values in conf/executor/. tests/sweep/test_executors.py tests every one of the table.
"""

import dataclasses
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, Self

from digitlab.runs.interrupts import Interrupts

# What a task calls to say something to the controller, which answers. A remote executor brings the
# answer late: with the task's next message about the same trial (its `number`).
Tell = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the trials of a sweep need. device: `cuda` if any of them trains on a GPU. threads: of the
    trial that takes the most."""

    device: str
    threads: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class UnderWay:
    """A task that an earlier controller submitted, and what with. It may have ended meanwhile."""

    future: Future[Any]
    args: tuple[Any, ...]


class Executor(Protocol):
    """Runs tasks. It is made with its settings and the sweep's Needs, and begins nothing by that.

    A task is a module-level function that is called with `tell` and `interrupts` besides its own
    arguments. Its future raises WorkerDied or TaskFailed where it runs in another process.
    """

    @property
    def num_workers(self) -> int:
        """Tasks that run at the same time."""

    @property
    def num_ahead(self) -> int:
        """Tasks to submit at a time, so that no worker waits for the controller."""

    @property
    def is_remote(self) -> bool:
        """Whether tasks may run on other machines, and go on when their controller has ended."""

    @property
    def is_this_process(self) -> bool:
        """Whether tasks run in the process that submits them, which waits for each."""

    def attach(self, folder: Path) -> Sequence[UnderWay]:
        """Take the folder of the sweep, where tasks of an earlier controller may be under way.

        Raises:
            UsageError: where they would run does not answer, or refuses what was asked for.
        """

    def prepare(self) -> None:
        """Begin, in the background, what takes long before the first task."""

    def start(self, tell: Tell, interrupts: Interrupts) -> None:
        """Take tasks from now on. tell: answers them, in any thread. interrupts: of this process."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run a task now, or as soon as a worker is free."""

    def interrupt(self, number: int) -> None:
        """Ask every running task to stop at its next step, as by this signal; begin no other."""

    def shutdown(self) -> None:
        """Cancel what has not begun; wait for what has, unless it is remote; end every worker."""


class WorkerDied(Exception):  # noqa: N818  (what happened, not a mistake)
    """A worker ended in the middle of a task."""

    @classmethod
    def with_code(cls, exit_code: int | None) -> Self:
        """Its process ended with this code, or by a signal (negative)."""
        if exit_code is not None and exit_code < 0:
            name = signal.Signals(-exit_code).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return cls(f"its process was ended by {name}{hint}")
        return cls(f"its process ended with code {exit_code}")


class TaskFailed(Exception):  # noqa: N818
    """A task raised in another process; the message is its traceback."""
