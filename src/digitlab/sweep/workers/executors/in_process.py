"""This very process as an executor: for debuggers, and where no process may be started."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from digitlab.errors import Interrupted
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.settings import InProcessSettings
from digitlab.sweep.workers.executors.executor import Needs, Tell, UnderWay


class InProcess:
    """Runs each task when it is submitted."""

    num_workers = 1
    num_ahead = 1
    is_remote = False
    is_this_process = True

    def __init__(self, settings: InProcessSettings, needs: Needs) -> None:
        """It has no settings, and whatever this process has must suffice."""

    def attach(self, folder: Path) -> Sequence[UnderWay]:
        """Nothing outlives its controller."""
        return ()

    def prepare(self) -> None:
        """Nothing takes long."""

    def start(self, tell: Tell, interrupts: Interrupts) -> None:
        self._tell, self._interrupts = tell, interrupts

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*args, tell=self._tell, interrupts=self._interrupts))
        except (Exception, Interrupted) as error:
            future.set_exception(error)
        return future

    def interrupt(self, number: int) -> None:
        """Nothing runs outside `submit`."""

    def shutdown(self) -> None:
        """Nothing has been started."""
