"""Bringing a record to its tracking store, never at the expense of the run."""

import functools
import time
from collections.abc import Callable

from digitlab.errors import TrackingError
from digitlab.record import Record
from digitlab.tracking.location import unreachable
from digitlab.tracking.store import RunStore

PUSH_EVERY_SECONDS = 2.0
RETRY_AFTER_SECONDS = 30.0
LOCKED_FOR_SECONDS = 60.0

open_store = functools.cache(RunStore)  # importing mlflow and opening a store: once per process


class Delivery:
    """Delivers while a run goes on, at most every 2 s, and completely at its end.

    A store that fails is left alone for 30 s; the record on disk is the truth meanwhile.
    """

    def __init__(self, record: Record, say: Callable[[str], None]) -> None:
        self.record, self.say = record, say
        self._next_push = time.monotonic() + PUSH_EVERY_SECONDS
        self._has_failed = False

    def push(self) -> None:
        """Deliver what is new, if it is time to."""
        if time.monotonic() < self._next_push:
            return
        uri = self.record.run.tracking_uri
        try:
            if reason := unreachable(uri):  # within 3 s, where MLflow would try for half a minute
                raise TrackingError(reason)
            open_store(uri).deliver(self.record)
            self._next_push = time.monotonic() + PUSH_EVERY_SECONDS
        except TrackingError as error:
            if not self._has_failed:
                self.say(f"{error}; training goes on and the record is kept on this disk")
            self._has_failed = True
            self._next_push = time.monotonic() + RETRY_AFTER_SECONDS

    def finish(self) -> bool:
        """Deliver all of it; False if the store fails, or stays locked for a minute."""
        deadline = time.monotonic() + LOCKED_FOR_SECONDS
        uri = self.record.run.tracking_uri
        while True:
            try:
                if reason := unreachable(uri):
                    raise TrackingError(reason)
                open_store(uri).deliver(self.record)
                return True
            except TrackingError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    self.say(
                        f"not delivered: {error}; the run waits in {self.record.folder} "
                        "for `digitlab sync`"
                    )
                    return False
                self.say("the tracking store is locked by another process; trying again")
                time.sleep(1.0)
