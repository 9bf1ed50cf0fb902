"""Runs of trials brought to their store by the controller, in one process for all workers.

Writers to one SQLite file wait for one another, and each would import MLflow for itself. Knows no
executor, and not how a trial is trained.
"""

import collections
import dataclasses
import time
from pathlib import Path

from digitlab.sweep.workers.trial import silent
from digitlab.text.throttle import Throttle
from digitlab.tracking.delivery import Delivery
from digitlab.tracking.leftovers import REASON
from digitlab.tracking.names import ERROR_TAG
from digitlab.tracking.run_folder import DamagedRecord, RunFolder

SHOWN_AFTER_SECONDS = 10.0  # of training: shorter ones are delivered once, when they have ended
SHOWN_EVERY_SECONDS = 0.8  # one more: it takes 40 ms, and a chunk begins a hundred at once
MOST_ASKED = 4  # ends at once, so that what a running trial says need not wait behind all of them


@dataclasses.dataclass(slots=True)
class _UnderWay:
    """A trial that is trained. delivery: of its run, once it is shown while it goes on."""

    folder: Path
    shown_from: float
    delivery: Delivery | None = None


class Deliveries:
    """Waits for nothing until `finish`. run_ids: by trial, of the runs that the store has whole."""

    def __init__(self) -> None:
        self.run_ids: dict[int, str] = {}
        self._under_way: dict[int, _UnderWay] = {}
        self._ended: collections.deque[tuple[int, Path]] = collections.deque()
        self._asked: dict[int, Delivery] = {}
        self._showing = Throttle(SHOWN_EVERY_SECONDS)

    def begin(self, number: int, folder: Path) -> None:
        """A trial is to be trained, whose run will have this folder."""
        self._under_way[number] = _UnderWay(folder, time.monotonic() + SHOWN_AFTER_SECONDS)

    def end(self, number: int, folder: Path) -> None:
        """A trial has ended, well or not."""
        self._under_way.pop(number, None)
        self._ended.append((number, folder))

    def go_on(self) -> dict[int, str]:
        """Ask for what is due; returns the ids of the runs delivered since the last call."""
        for each in self._under_way.values():
            self._show(each)
        delivered = {}
        for number in [n for n, delivery in self._asked.items() if delivery.is_finished()]:
            if run_id := self._conclude(number, self._asked.pop(number)):
                delivered[number] = run_id
        while self._ended and len(self._asked) < MOST_ASKED:
            self._ask(*self._ended.popleft())
        return delivered

    def prefer(self, number: int) -> None:
        """Ask for this trial before the others that have ended."""
        self._ended = collections.deque(sorted(self._ended, key=lambda ended: ended[0] != number))

    def finish(self) -> dict[int, str]:
        """Deliver every trial that has ended; returns the ids of the runs delivered by this call.

        Within 10 s for a store that does not answer; what it does not take waits for `digitlab sync`.
        """
        delivered = self.go_on()
        while self._asked:
            number = next(iter(self._asked))
            if run_id := self._conclude(number, self._asked.pop(number)):
                delivered[number] = run_id
            delivered |= self.go_on()
        return delivered

    def _show(self, each: _UnderWay) -> None:
        if time.monotonic() < each.shown_from:
            return
        if each.delivery is None:
            if not self._showing.passes():
                return
            try:
                each.delivery = Delivery(RunFolder.load(each.folder), silent)
            except DamagedRecord:  # or none yet: its worker is busy with another trial
                each.shown_from = time.monotonic() + SHOWN_AFTER_SECONDS
                return
        each.delivery.push()

    def _ask(self, number: int, folder: Path) -> None:
        try:
            record = RunFolder.load(folder)
        except DamagedRecord:  # or none: it failed before it had a run
            return
        if record.try_to_own():
            record.finish("KILLED", {ERROR_TAG: REASON})  # unless it has ended
            self._asked[number] = Delivery(record, silent)
            self._asked[number].begin_finish()

    def _conclude(self, number: int, delivery: Delivery) -> str | None:
        is_delivered = delivery.finish()
        delivery.record.release()
        run_id = delivery.record.delivered.run_id
        if is_delivered and run_id:
            self.run_ids[number] = run_id
        return run_id if is_delivered else None
