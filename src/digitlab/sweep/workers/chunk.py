"""What a worker does with several trials at once: train them side by side, record each as if alone.

Whatever goes wrong with one costs it alone. What goes wrong with all of them, such as memory that does
not suffice, leaves them cut short: they go on one by one, at their checkpoints.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from digitlab.errors import CutShort, DigitlabError, Interrupted
from digitlab.results.trial_result import TrialResult
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.manifest import Trial
from digitlab.sweep.planning.engines import engine_tag
from digitlab.sweep.workers.entry import Entry, Failure
from digitlab.sweep.workers.trial import (
    Task,
    load_data,
    release_gpu_memory,
    request_trial,
    silent,
)
from digitlab.text.throttle import Throttle
from digitlab.tracking.names import ENGINE_TAG
from digitlab.training.fused.architectures import ARCHITECTURES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from digitlab.data.splits import Dataset, Split
    from digitlab.training.fused.epochs import Moment
    from digitlab.training.fused.members import Member

TOO_LARGE = "batches of so large images take too much memory side by side"
SHARE_OF_SAVING = 0.05  # of the time, at most, goes into checkpoints that are due by time


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTask:
    """Trials to be trained side by side. must_gain: only if that is faster here than one by one."""

    tasks: list[Task]
    must_gain: bool

    @property
    def trials(self) -> list[Trial]:
        return [task.trial for task in self.tasks]


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """What a worker says when it trains these trials of a chunk one by one."""

    numbers: list[int]
    reason: str

    def __str__(self) -> str:
        """`trials 0, 1, 2 and 5 more are trained one by one: ...`."""
        shown, more = self.numbers[:3], len(self.numbers) - 3
        which = ", ".join(map(str, shown)) + (f" and {more} more" if more > 0 else "")
        if len(self.numbers) == 1:
            return f"trial {which} is trained by itself: {self.reason}"
        return f"trials {which} are trained one by one: {self.reason}"


def run_chunk(
    task: ChunkTask, *, tell: Callable[[Any], Any], interrupts: Interrupts
) -> list[TrialResult]:
    """Train, test and record all of them; `tell` hears of each trial's result when it ends.

    A trial that a signal, or a failure of all of them, cut short is INTERRUPTED.
    """
    from digitlab.training.devices import prepare_process

    config = task.tasks[0].trial.config()
    device = prepare_process(config)
    dataset = load_data(config.data)
    results: list[TrialResult] = []
    most = _most_together(task, dataset)
    refusal = TOO_LARGE if most == 1 < len(task.tasks) else ""
    if refusal:
        tell(Refusal([trial.number for trial in task.trials], refusal))
    for start in range(0, len(task.tasks), most):
        part = dataclasses.replace(task, tasks=task.tasks[start : start + most])
        with contextlib.ExitStack() as runs:
            chunk = _Chunk(part, tell, interrupts, runs, refusal)
            try:
                chunk.open(device, dataset)
                chunk.train(device, dataset)
            except (Interrupted, Exception) as error:
                chunk.cut_short(error)
            for entry in chunk.entries:
                entry.settle()
        release_gpu_memory()
        results += [entry.result for entry in chunk.entries if entry.result]
        if chunk.is_cut_short:
            break
    return results


def _most_together(task: ChunkTask, dataset: "Dataset") -> int:
    """Trials that are trained at once. A user who asks for engine=fused gets all of them."""
    config = task.tasks[0].trial.config()
    if not task.must_gain:
        return len(task.tasks)
    return ARCHITECTURES[config.model.name].most_together(
        batch_size=config.batch_size,
        image_shape=dataset.image_shape,
        num_classes=dataset.num_classes,
    )


class _Chunk:
    """runs: holds the runs that are open, so that none is left without its end. refusal: why each is
    trained by itself, if for a reason that all share."""

    def __init__(
        self,
        task: ChunkTask,
        tell: Callable[[Any], Any],
        interrupts: Interrupts,
        runs: contextlib.ExitStack,
        refusal: str,
    ) -> None:
        self.entries = [Entry(each, len(task.tasks), self._tell) for each in task.tasks]
        for entry in self.entries:
            entry.refusal = refusal
        self.is_cut_short = False
        self._controller, self._must_stop = tell, ""
        self._task, self._interrupts, self._runs = task, interrupts, runs
        self._saving = Throttle(task.tasks[0].trial.config().checkpoint.every_seconds)
        self._saving.rest()
        self._engine = engine_tag(len(self.entries))

    @property
    def left(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.result is None]

    def _tell(self, message: Any) -> Any:
        """The controller's answer to a failure is a reason to stop all of them, or None."""
        answer = self._controller(message)
        if answer and isinstance(message, Failure):
            self._must_stop = answer
        return answer

    def _check(self) -> None:
        """Raises Interrupted, or what stops all of them."""
        self._interrupts.check()
        if self._must_stop:
            raise DigitlabError(self._must_stop)

    def open(self, device: "torch.device", dataset: "Dataset") -> None:
        """A record for each, and where it was cut short, what it had reached."""
        from digitlab.runs.experiment import Session, open_run

        for entry in self.entries:
            self._check()
            try:
                request = request_trial(entry.task, dataset, device, engine=self._engine)
                session = Session(self._interrupts, silent, entry.watch)
                entry.run = self._runs.enter_context(open_run(request, session))
                entry.run.begin()
                entry.run.checkpoints.rest(math.inf)  # all of them are saved at the same time, by us
                if any(map(entry.follow, entry.run.training.earlier)) and entry.result is None:
                    entry.conclude()
            except Exception as error:
                entry.end(error)

    def train(self, device: "torch.device", dataset: "Dataset") -> None:
        """Those that stand at the same step together, one such group after another."""
        from digitlab.training.fused.members import NotFusable

        places: dict[tuple[int, int], list[Entry]] = {}
        for entry in self.left:
            start = entry.opened.training.start
            places.setdefault((start.epoch, start.step), []).append(entry)
        for entries in places.values():
            members = {entry.member(): entry for entry in entries}
            if len(entries) == 1:
                self._train_apart(members)
                continue
            try:
                self._train_together(members, device, dataset)
            except NotFusable as refusal:
                left = [entry for entry in entries if entry.result is None]
                for entry in left:
                    entry.refusal = str(refusal)
                numbers = [entry.task.trial.number for entry in left]
                self._controller(Refusal(numbers, str(refusal)))
                self._train_apart(members)

    def _train_together(
        self, members: "Mapping[Member, Entry]", device: "torch.device", dataset: "Dataset"
    ) -> None:
        from digitlab.training.fused.loop import fit_many

        config = next(iter(members.values())).opened.training.config
        test = dataset.test.to(device)

        def before_step(moment: "Moment") -> None:
            self._before_step(moment, members)

        for reports in fit_many(
            list(members),
            dataset.train.to(device),
            dataset.validation.to(device) if dataset.validation else None,
            batch_size=config.batch_size,
            epochs=config.epochs,
            must_gain=self._task.must_gain,
            before_step=before_step,
        ):
            for member, entry in members.items():
                if member.diverged and entry.result is None:
                    entry.end(member.diverged)
            for member, report in reports:
                if self._must_stop:
                    break
                member.has_left = members[member].follow(report)
            self._conclude(
                [members[member] for member, _ in reports if member.has_left], len(reports), test
            )
            for entry in members.values():
                if entry.result is None:
                    entry.opened.delivery.push()
                else:
                    entry.settle_if_delivered()
            self._check()  # at a signal all have been saved now, by following their reports

    def _conclude(self, entries: list[Entry], num_trained: int, test: "Split") -> None:
        """Test those that have left without failing. All that were trained at once are tested at once:
        that so many are exact is known already, of other numbers it would have to be tried."""
        from digitlab.training.fused.loop import predict_many

        left = [entry for entry in entries if entry.result is None]
        logits: list[Tensor | None] = [None] * len(left)
        if len(left) == num_trained:
            logits[:] = predict_many([entry.opened.training.model for entry in left], test)
        for entry, own in zip(left, logits, strict=True):
            if self._must_stop:
                break
            entry.conclude(own)

    def _train_apart(self, members: "Mapping[Member, Entry]") -> None:
        """One after another, each by the plain loop: the same bits, in more time."""
        for member, entry in members.items():
            if entry.result:
                continue
            self._check()
            run = entry.opened
            run.training.start = member.position
            run.checkpoints.rest(0.0)
            run.record.run.tags[ENGINE_TAG] = engine_tag(1)
            try:
                run.train()
                run.conclude()
                entry.end(None)
            except Exception as error:
                entry.end(error)
            entry.settle()

    def _before_step(self, moment: "Moment", members: "Mapping[Member, Entry]") -> None:
        """Save all of them if it is time to, or if this is the last moment to do so."""
        from digitlab.training.loop import Position

        lead = next(entry.opened for member, entry in members.items() if not member.has_left)
        here = Position(epoch=moment.epoch, step=moment.step)
        every = lead.training.config.checkpoint.every_seconds
        is_time = every and self._saving.is_due()
        is_due = bool(moment.step) and (is_time or lead.checkpoints.is_due(here))
        if is_due or self._interrupts.signal_number is not None:
            started = time.monotonic()
            for member, position in moment.positions():
                if not member.has_left:
                    members[member].opened.checkpoints.save(position)
            spent = time.monotonic() - started
            self._saving.rest(max(every, spent / SHARE_OF_SAVING))
        self._interrupts.check()

    def cut_short(self, error: BaseException) -> None:
        """What is left goes on when the sweep is repeated."""
        self.is_cut_short = True
        for entry in self.left:
            if entry.run is None:
                continue
            entry.end(error if isinstance(error, Interrupted) else CutShort(error))
