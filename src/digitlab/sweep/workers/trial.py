"""What a worker does: train one trial, and say what came of it. Whatever goes wrong costs it alone.

The controller names these functions too and should not wait for torch: functions import it.
"""

import dataclasses
import functools
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from digitlab.config import project
from digitlab.config.schema import DataConfig
from digitlab.errors import Diverged, Interrupted, Pruned
from digitlab.results.trial_result import TrialResult
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.manifest import Trial
from digitlab.tracking.run_folder import ENGINE_TAG, Membership, RunFolder

if TYPE_CHECKING:
    from digitlab.data.splits import Dataset
    from digitlab.runs.experiment import Outcome
    from digitlab.training.loop import EpochReport

TELL_EVERY_SECONDS = 0.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A trial and its place. tells_every_epoch: somebody decides after each whether to go on."""

    trial: Trial
    member: Membership
    tells_every_epoch: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """What a trial says while it runs; the answer is a reason to give it up, or None."""

    number: int
    epoch: int
    epochs: int
    metrics: dict[str, float]


def run_trial(task: Task, *, tell: Callable[[Any], Any], interrupts: Interrupts) -> TrialResult:
    """Train, test and record one trial; never raises what a trial may end with."""
    trial, started = task.trial, time.monotonic()
    watch = TrialWatch(task, tell)
    result = TrialResult(
        number=trial.number, point=trial.point, name=trial.name, state="FINISHED", swept=trial.swept
    )
    try:
        outcome = _run(task, watch, interrupts)
        found: dict[str, Any] = {"metrics": metrics_of(outcome)}
    except Interrupted as error:
        found = {"state": "INTERRUPTED", "error": str(error)}
    except Pruned as error:
        found = {"state": "PRUNED", "error": str(error)}
    except Diverged as error:
        found = {"state": "FAILED", "error": str(error)}
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        found = {"state": "FAILED", "error": told, "traceback": traceback.format_exc()}
    release_gpu_memory()
    seconds = time.monotonic() - started
    return dataclasses.replace(
        result, run_id=watch.run_id, history=watch.history, seconds=seconds, **found
    )


def _run(task: Task, watch: "TrialWatch", interrupts: Interrupts) -> "Outcome":
    from digitlab.runs.experiment import run_experiment
    from digitlab.training.devices import prepare_process

    config = task.trial.config()
    prepare_process(config)  # before torch splits the data, which fixes the arithmetic
    return run_experiment(
        config,
        interrupts=interrupts,
        say=lambda message: None,
        watch=watch,
        member=task.member,
        dataset=load_data(config.data),
        tags={ENGINE_TAG: "sequential"},
    )


def release_gpu_memory() -> None:
    """torch keeps what a trial has used of a GPU, where another worker may be in need of it."""
    import torch

    torch.cuda.empty_cache()


@functools.lru_cache(maxsize=1)
def load_data(config: DataConfig) -> "Dataset":
    from digitlab.data.splits import load

    return load(config, project.data_root(config.root))


def metrics_of(outcome: "Outcome") -> dict[str, float]:
    scores, chosen = outcome.evaluation.scores, outcome.history[outcome.chosen_epoch - 1].validation
    metrics = {"test/loss": scores.loss, "test/accuracy": scores.accuracy}
    if chosen:
        metrics["chosen/validation_loss"] = chosen.loss
        metrics["chosen/validation_accuracy"] = chosen.accuracy
    return metrics


class TrialWatch:
    """Keeps the history and tells the controller: of every epoch, or now and then."""

    def __init__(self, task: Task, tell: Callable[[Any], Any]) -> None:
        self._task, self._tell = task, tell
        self._next = 0.0
        self._epochs = 0
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.run_id: str | None = None

    def begin(self, *, epochs: int, steps_per_epoch: int, steps_done: int) -> None:
        self._epochs = epochs

    def before_step(self) -> None:
        """A step is too short to speak of."""

    def after_epoch(self, report: "EpochReport") -> None:
        from digitlab.runs.artifacts import epoch_metrics

        metrics = epoch_metrics(report)
        for name, value in metrics.items():
            if name.startswith(("train/", "validation/")):
                self.history.setdefault(name, []).append((report.epoch, value))
        if self._task.tells_every_epoch or time.monotonic() >= self._next:
            self._next = time.monotonic() + TELL_EVERY_SECONDS
            said = Progress(self._task.trial.number, report.epoch, self._epochs, metrics)
            if reason := self._tell(said):
                raise Pruned(epoch=report.epoch, reason=reason)

    def end(self) -> None:
        """The result says all."""

    def recorded(self, record: RunFolder) -> None:
        self.run_id = record.delivered.run_id
