"""What a user sees while a sweep runs: a bar on a terminal, one line a trial; in a notebook a bar."""

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from digitlab.results.trial_result import TrialResult
from digitlab.text.notebook import CellBar
from digitlab.text.terminal import console

if TYPE_CHECKING:
    from digitlab.sweep.workers.trial import Progress as Message

STYLES = {"FINISHED": "green", "FAILED": "red", "PRUNED": "dim", "INTERRUPTED": "yellow"}


class SweepDisplay:
    """On standard error; may be called from several threads."""

    def __init__(self, num_trials: int, num_finished: int, metric: str) -> None:
        self._console = console(stderr=True, soft_wrap=True)
        self._metric = metric
        self._total, self._done = num_trials, num_finished
        self._running: dict[int, str] = {}
        self._cell = CellBar()
        self._bar = Progress(
            TextColumn("trials"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[running]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=num_trials, completed=num_finished, running="")

    def start(self) -> None:
        self._bar.start()

    def stop(self) -> None:
        self._bar.stop()
        self._cell.end(f"trials: {self._done} of {self._total} have ended")

    def progress(self, message: "Message") -> None:
        """One of the running trials has finished an epoch."""
        self._running[message.number] = f"{message.number}: epoch {message.epoch}/{message.epochs}"
        running = "  ".join([*self._running.values()][:4])
        self._bar.update(self._task, running=running)
        self._cell.show(self._done, self._total, f"trials {self._done}/{self._total}  {running}")

    def ended(self, result: TrialResult) -> None:
        self._running.pop(result.number, None)
        self._done += result.state != "INTERRUPTED"
        parts = [f"[{self._done}/{self._total}]", f"{result.state:8}", result.name]
        value = result.metrics.get(self._metric)
        if value is not None:
            is_share = self._metric.endswith("accuracy")
            parts.append(f"validation {100 * value:.2f} %" if is_share else f"validation {value:.4f}")
        parts.append(f"{result.seconds:.1f} s")
        if result.error and result.state != "FINISHED":
            parts.append(result.error.splitlines()[0])
        line = "  ".join(parts)
        if self._cell.is_shown:
            self._cell.show(self._done, self._total, f"trials {line}")
        else:
            self._console.print(line, style=STYLES.get(result.state, ""))
        self._bar.update(self._task, completed=self._done)


def in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
