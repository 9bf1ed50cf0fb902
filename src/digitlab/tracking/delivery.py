"""Bringing a record to its tracking store, never at the expense of the run."""

import functools
import time
from collections.abc import Callable, Iterable

from digitlab import project
from digitlab.errors import DeletedError, DigitlabError, TrackingError
from digitlab.record import Record
from digitlab.tracking.location import (
    is_made,
    read_only,
    sqlite_file,
    undeliverable,
    unreachable,
    unusable,
)
from digitlab.tracking.sqlite_store import check_study
from digitlab.tracking.store import RunStore

PUSH_EVERY_SECONDS = 2.0
RETRY_AFTER_SECONDS = 30.0
LOCKED_FOR_SECONDS = 60.0

open_store = functools.cache(RunStore)  # importing mlflow and opening a store: once per process


def check_before_training(uri: str, study: str, records: Iterable[Record] = ()) -> None:
    """Refuse what could be trained to its end and never be delivered; a store may well be away.

    records: those that are to go on.

    Raises:
        DigitlabError: this project can only be read.
        TrackingError: the store is a file that can only be read.
        DeletedError: the study, or the run of one of the records, was deleted in the store.
    """
    if reason := unusable(uri):
        raise TrackingError(f"{reason}; choose another store with tracking.uri=URI")
    if closed := read_only(project.records()):
        raise DigitlabError(
            f"{closed} can only be read, and every run is written to {project.records()} first: set "
            "DIGITLAB_HOME to a folder of your own with a copy of conf/"
        )
    file = sqlite_file(uri)
    if file and is_made(file):
        check_study(file, study)
    run_ids = [record.delivered.run_id for record in records if record.delivered.run_id]
    if not run_ids or unreachable(uri):
        return
    try:
        open_store(uri).check_not_deleted(run_ids)
    except DeletedError:
        raise
    except TrackingError:
        return  # it is away for now


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
            if reason := undeliverable(uri):  # within 3 s, where MLflow would try for half a minute
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
        if lost := self.record.num_damaged_lines:
            self.say(
                f"run {self.record.run.name!r} lacks the metrics of {lost} epochs: lines of "
                "metrics.jsonl are damaged; what can be read of it is delivered"
            )
        uri = self.record.run.tracking_uri
        while True:
            try:
                if reason := undeliverable(uri):
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
