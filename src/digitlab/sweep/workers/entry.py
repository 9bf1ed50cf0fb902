"""One trial of a chunk, from its opened run to its result, which costs no other trial anything.

Knows nothing of how the chunk is trained.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from digitlab.results.trial_result import TrialResult
from digitlab.sweep.workers.trial import Task, TrialWatch

if TYPE_CHECKING:
    from torch import Tensor

    from digitlab.runs.experiment import OpenRun
    from digitlab.training.fused.members import Member
    from digitlab.training.loop import EpochReport


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """What a worker says at once of a trial that fails beside others; its result follows, with its run.

    The answer is a reason to stop all of them, or None.
    """

    number: int


class Entry:
    """One trial of a chunk; `result` once it has ended."""

    def __init__(self, task: Task, num_trials: int, tell: Callable[[Any], Any]) -> None:
        self._num_trials = num_trials
        self.task, self.watch = task, TrialWatch(task, tell)
        self.run: OpenRun | None = None
        self.result: TrialResult | None = None
        self.refusal = ""  # why it is trained by itself
        self._is_settled = False
        self._started, self._tell = time.monotonic(), tell

    @property
    def opened(self) -> "OpenRun":
        assert self.run is not None, "it was opened"
        return self.run

    def member(self) -> "Member":
        """Its training as a member of the chunk."""
        from digitlab.training.fused.members import Member

        training = self.opened.training
        seed, order_seed = training.config.seed, training.config.data.order_seed
        return Member(
            model=training.model,
            optimizer=training.optimizer,
            schedule=training.schedule,
            seed=seed,
            order_seed=seed if order_seed is None else order_seed,
            position=training.start,
        )

    def follow(self, report: "EpochReport") -> bool:
        """Take note of an epoch; whether it was the last one, or the trial has failed with it."""
        try:
            is_over = self.opened.training.absorb(report)
            self.opened.after_epoch(report)
            if is_over:
                self.opened.training.settle()
        except Exception as error:
            self.end(error)
            return True
        return is_over

    def conclude(self, logits: "Tensor | None" = None) -> None:
        """Test what has been trained, and end. logits: (N, C) of the test images, if they are known."""
        try:
            self.opened.conclude(logits)
            self.end(None)
        except Exception as error:
            self.end(error)

    def end(self, error: BaseException | None) -> None:
        """With this error, or well; a signal or a failure of all leaves it to be continued.

        Its delivery begins; those beside it do not wait for that.
        """
        if self.run is not None:
            if error:
                self.run.fail(error)
            self.run.watch.end()
            self.run.delivery.begin_finish()
        share = (time.monotonic() - self._started) / self._num_trials
        end = error or self.opened.outcome()
        self.result = self.watch.result(end, seconds=share, refusal=self.refusal)
        if self.result.state == "FAILED":
            self._tell(Failure(self.task.trial.number))

    def settle_if_delivered(self) -> None:
        if self.run is None or self.run.delivery.is_finished():
            self.settle()

    def settle(self) -> None:
        """Tell the controller of a trial that has ended, with its run in the store."""
        if self.result is None or self._is_settled:
            return
        self._is_settled = True
        if self.run is not None:
            self.run.close()
        self.result = dataclasses.replace(self.result, run_id=self.watch.run_id)
        if self.result.state != "INTERRUPTED":
            self._tell(self.result)
