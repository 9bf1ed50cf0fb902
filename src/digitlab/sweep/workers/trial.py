"""What a worker does: train one trial, and say what came of it. Whatever goes wrong costs it alone.

The controller names these functions too and should not wait for torch: functions import it.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from digitlab.config.data_schema import DataConfig
from digitlab.errors import Interrupted, Pruned
from digitlab.results.trial_result import TrialResult
from digitlab.runs.artifacts import epoch_metrics
from digitlab.runs.ending import ending_of
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.manifest import Trial
from digitlab.sweep.planning.engines import engine_tag
from digitlab.text.throttle import Throttle
from digitlab.tracking.names import CHOSEN_ACCURACY, CHOSEN_LOSS, ENGINE_TAG, TEST_ACCURACY, TEST_LOSS
from digitlab.tracking.run_folder import Membership, RunFolder

if TYPE_CHECKING:
    import torch

    from digitlab.data.splits import Dataset
    from digitlab.runs.describe import Request
    from digitlab.runs.experiment import Outcome
    from digitlab.training.loop import EpochReport

TELL_EVERY_SECONDS = 0.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A trial and its place. tells_every_epoch: a pruner decides after each whether to go on."""

    trial: Trial
    member: Membership
    tells_every_epoch: bool = False

    @property
    def trials(self) -> list[Trial]:
        return [self.trial]


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """What a trial says while it runs; the answer is a reason to give it up, or None."""

    number: int
    epoch: int
    epochs: int
    metrics: dict[str, float]


def run_trial(task: Task, *, tell: Callable[[Any], Any], interrupts: Interrupts) -> TrialResult:
    """Train, test and record one trial; never raises what a trial may end with."""
    started, watch = time.monotonic(), TrialWatch(task, tell)
    end: Outcome | BaseException
    try:
        end = _run(task, watch, interrupts)
    except (Interrupted, Exception) as error:
        end = error
    release_gpu_memory()
    return watch.result(end, seconds=time.monotonic() - started)


def _run(task: Task, watch: "TrialWatch", interrupts: Interrupts) -> "Outcome":
    from digitlab.runs.experiment import Session, run_experiment
    from digitlab.training.devices import prepare_process

    config = task.trial.config()
    device = prepare_process(config)  # before torch splits the data, which fixes the arithmetic
    request = request_trial(task, load_data(config.data), device, engine=engine_tag(1))
    return run_experiment(request, Session(interrupts, silent, watch))


def request_trial(task: Task, dataset: "Dataset", device: "torch.device", *, engine: str) -> "Request":
    from digitlab.runs.describe import Request, describe_run

    config = task.trial.config()
    return Request(
        config=config,
        dataset=dataset,
        document=describe_run(config, dataset, device, command=task.member.command),
        tags={ENGINE_TAG: engine},
        member=task.member,
    )


def silent(message: str) -> None:
    """A worker's terminal is the controller's."""


def release_gpu_memory() -> None:
    """torch keeps what a trial has used of a GPU, where another worker may be in need of it."""
    import torch

    torch.cuda.empty_cache()


@functools.lru_cache(maxsize=1)
def load_data(config: DataConfig) -> "Dataset":
    from digitlab.data.splits import load

    return load(config)


def _metrics_of(outcome: "Outcome") -> dict[str, float]:
    scores, chosen = outcome.evaluation.scores, outcome.history[outcome.chosen_epoch - 1].validation
    metrics = {TEST_LOSS: scores.loss, TEST_ACCURACY: scores.accuracy}
    if chosen:
        metrics[CHOSEN_LOSS] = chosen.loss
        metrics[CHOSEN_ACCURACY] = chosen.accuracy
    return metrics


class TrialWatch:
    """Keeps the history and tells the controller: of every epoch, or now and then."""

    def __init__(self, task: Task, tell: Callable[[Any], Any]) -> None:
        self._task, self._tell = task, tell
        self._throttle = Throttle(TELL_EVERY_SECONDS)
        self._epochs = 0
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.run_id: str | None = None

    def begin(self, *, epochs: int, steps_per_epoch: int, steps_done: int) -> None:
        self._epochs = epochs

    def before_step(self) -> None:
        """A step is too short to speak of."""

    def after_epoch(self, report: "EpochReport") -> None:
        metrics = epoch_metrics(report)
        for name, value in metrics.items():
            if name.startswith(("train/", "validation/")):
                self.history.setdefault(name, []).append((report.epoch, value))
        if self._task.tells_every_epoch or self._throttle.passes():
            message = Progress(self._task.trial.number, report.epoch, self._epochs, metrics)
            if reason := self._tell(message):
                raise Pruned(epoch=report.epoch, reason=reason)

    def end(self) -> None:
        """The result says all."""

    def result(
        self, end: "Outcome | BaseException", *, seconds: float, refusal: str = ""
    ) -> TrialResult:
        """Of the trial, which came to this end."""
        known = {
            "run_id": self.run_id,
            "history": self.history,
            "seconds": seconds,
            "refusal": refusal,
        }
        if not isinstance(end, BaseException):
            return self._task.trial.result("FINISHED", metrics=_metrics_of(end), **known)
        ending = ending_of(end)
        return self._task.trial.result(
            ending.state,
            error=ending.error,
            is_final=ending.is_final,
            traceback=ending.traceback,
            **known,
        )

    def recorded(self, record: RunFolder) -> None:
        self.run_id = record.delivered.run_id
