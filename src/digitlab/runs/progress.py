"""What a user sees while a run trains: a bar on a terminal or in a notebook, else one line an epoch."""

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from digitlab.text.notebook import CellBar
from digitlab.text.terminal import console, echo, say
from digitlab.text.throttle import Throttle
from digitlab.tracking.run_folder import RunFolder
from digitlab.training.loop import EpochReport

REDRAW_EVERY_SECONDS = 0.1


class TrainingProgress:
    """Counts steps and shows epoch reports, on standard error."""

    def __init__(self) -> None:
        self.epochs = 0
        self.console = console(stderr=True)
        self._is_terminal = self.console.is_terminal  # asked at each step, it would take 3 % of them
        self._step = self._total = 0
        self._cell, self._scores = CellBar(), ""
        self._throttle = Throttle(REDRAW_EVERY_SECONDS)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}"),
            console=self.console,
            transient=True,
            disable=not self._is_terminal,
        )

    def begin(self, *, epochs: int, steps_per_epoch: int, steps_done: int) -> None:
        self.epochs, self._step = epochs, steps_done
        self._total = epochs * steps_per_epoch
        self._task = self._bar.add_task(f"epoch 1/{epochs}", total=self._total, scores="")
        self._bar.start()

    def end(self) -> None:
        self._bar.stop()
        self._cell.end(self._scores)

    def before_step(self) -> None:
        self._step += 1
        self._cell.show(self._step, self._total, self._scores)
        if self._is_terminal and self._throttle.passes():
            self._bar.update(self._task, completed=self._step)

    def after_epoch(self, report: EpochReport) -> None:
        scores = describe(report)
        if self._is_terminal:
            following = min(report.epoch + 1, self.epochs)
            self._bar.update(self._task, description=f"epoch {following}/{self.epochs}", scores=scores)
        elif self._cell.is_shown:
            self._scores = f"epoch {report.epoch}/{self.epochs}  {scores}"
        else:
            echo(f"epoch {report.epoch}/{self.epochs}  {scores}", err=True)

    def recorded(self, record: RunFolder) -> None:
        run, run_id = record.run, record.delivered.run_id
        if run.status != "FINISHED":
            name = run_id[:8] if run_id else run.record_id
            hint = f"; go on: digitlab resume {name}" if run.is_resumable else ""
            message = f"recorded as {run.status}: digitlab show {name}{hint}"
            if self._cell.is_shown:
                say(message)
            else:
                self.console.print(message, style="yellow", soft_wrap=True)


def describe(report: EpochReport) -> str:
    """`loss 0.31  accuracy 91.2 %  validation 0.29, 92.0 %  12,400 images/s`."""
    parts = [f"loss {report.train.loss:.4f}", f"accuracy {100 * report.train.accuracy:.2f} %"]
    if report.validation:
        loss, accuracy = report.validation.loss, 100 * report.validation.accuracy
        parts.append(f"validation {loss:.4f}, {accuracy:.2f} %")
    return "  ".join([*parts, f"{report.images_per_second:,.0f} images/s"])
