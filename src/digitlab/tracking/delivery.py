"""Delivery of a record to its tracking store, never at the expense of the run."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from digitlab.config import project
from digitlab.errors import DeletedError, DigitlabError, TrackingError
from digitlab.text.throttle import Throttle
from digitlab.tracking.connection.location import is_made, read_only, sqlite_file, unreachable, unusable
from digitlab.tracking.connection.sqlite_store import check_study
from digitlab.tracking.connection.store_process import STORES
from digitlab.tracking.run_folder import Delivered, RunFolder
from digitlab.tracking.store import RunStore

PUSH_EVERY_SECONDS = 2.0
SHARE_OF_PUSHING = 0.1  # of a core, at most, is taken by telling how far runs are
RETRY_AFTER_SECONDS = 30.0
PUSH_SECONDS = 90.0  # and as long as it imports
END_SECONDS, SYNC_SECONDS = 10.0, 600.0  # of a run, and where its user asks for nothing else
CALL_SECONDS = 30.0

open_store = functools.cache(RunStore)  # importing mlflow and opening a store: once per process


def open_answering(uri: str) -> RunStore:
    """Raises TrackingError within 3 s if the store cannot be read."""
    check_answering(uri)
    return open_store(uri)


def check_answering(uri: str) -> None:
    """Raises TrackingError within 3 s if the store cannot be read."""
    if reason := unreachable(uri):
        start_it = "" if sqlite_file(uri) else "start it, or "
        raise TrackingError(f"{reason}; {start_it}choose another with tracking.uri=URI")


def check_before_training(uri: str, study: str, records: Iterable[RunFolder] = ()) -> None:
    """Refuse what could be trained to its end and never be delivered; a store may be away meanwhile.

    records: of runs that will be continued.

    Raises:
        DigitlabError: this project can only be read.
        TrackingError: the store is a file that can only be read.
        DeletedError: the study, or the run of one of the records, was deleted in the store.
    """
    if reason := unusable(uri):
        raise TrackingError(f"{reason}; choose another store with tracking.uri=URI")
    if closed := read_only(project.records()):
        raise DigitlabError(
            f"{closed} can only be read, and every run is written to {project.records()} first: "
            "work in a project of your own (`digitlab init NAME`)"
        )
    file = sqlite_file(uri)
    if file and is_made(file):
        check_study(file, study)
    run_ids = [record.delivered.run_id for record in records if record.delivered.run_id]
    if not run_ids:
        return
    try:
        bounded_store(uri).check_not_deleted(run_ids)
    except DeletedError:
        raise
    except TrackingError:
        return  # it is away for now


class Delivery:
    """Lets another process deliver: while a run goes on, at most every 2 s, and completely at its end.

    A store that fails is left alone for 30 s; the record on disk is the truth meanwhile.
    """

    def __init__(self, record: RunFolder, say: Callable[[str], None]) -> None:
        self.record, self.say = record, say
        self._throttle = Throttle(PUSH_EVERY_SECONDS)
        self._throttle.rest()
        self._pushed: tuple[int, float] | None = None  # the request that is under way, and since when
        self._used: float | None = None  # processor seconds, when this was pushed last
        self._ended: int | None = None
        self._has_failed = False

    def push(self) -> None:
        """Ask for delivery of what is new, if it is time to; waits for nothing."""
        now = time.monotonic()
        try:
            if self._pushed:
                number, since = self._pushed
                is_in_time = STORES.is_importing or now < since + PUSH_SECONDS
                if not STORES.is_answered(number) and is_in_time:
                    return
                self._pushed = None
                self.record.delivered, used = STORES.answer(number, seconds=0.0)
                spent = 0.0 if self._used is None else used - self._used  # on all runs of this process
                self._used = used
                self._throttle.rest(since - now + max(PUSH_EVERY_SECONDS, spent / SHARE_OF_PUSHING))
            if self._throttle.is_due():
                self._pushed = self._ask(_push), now
        except DigitlabError as error:
            if not self._has_failed:
                self.say(f"{error}; training goes on and the record is kept on this disk")
            self._has_failed = True
            self._throttle.rest(RETRY_AFTER_SECONDS)

    def begin_finish(self) -> None:
        """Ask for the end to be delivered; `finish` waits for it."""
        try:
            self._ended = self._ask(_deliver)
        except TrackingError:
            self._ended = None  # `finish` asks again, and says why not

    def is_finished(self) -> bool:
        """Whether `finish` would not wait."""
        return self._ended is None or STORES.is_answered(self._ended)

    def finish(self, *, seconds: float | None = None) -> bool:
        """Deliver all of it; False if the store fails, or does not take it in time (10 s)."""
        try:
            if lost := self.record.num_damaged_lines:
                self.say(
                    f"run {self.record.run.name!r} lacks the metrics of {lost} epochs: lines of "
                    "metrics.jsonl are damaged; what can be read of it is delivered"
                )
            self.deliver(seconds=seconds)
        except (DigitlabError, OSError) as error:  # of this disk, from which it is read
            self.say(
                f"not delivered: {error}; the run waits in {self.record.folder} for `digitlab sync`"
            )
            return False
        return True

    def deliver(self, *, seconds: float | None = None) -> None:
        """Raises TrackingError if the store fails, or does not take it in time; it may be locked."""
        deadline = time.monotonic() + (END_SECONDS if seconds is None else seconds)
        while True:
            number, self._ended = self._ended or self._ask(_deliver), None
            left = max(deadline - time.monotonic(), 1.0)
            try:
                self.record.delivered = STORES.answer(number, seconds=left)
                return
            except TrackingError as error:
                if "locked" not in str(error) or time.monotonic() + 1.0 > deadline:
                    raise
                self.say("the tracking store is locked by another process; trying again")
                time.sleep(1.0)

    def _ask(self, function: Callable[[Path], Any]) -> int:
        return STORES.ask(self.record.run.tracking_uri, function, self.record.folder)


class LeftToController:
    """A Delivery that does nothing: the controller of a sweep delivers the run when it has ended."""

    def push(self) -> None: ...
    def begin_finish(self) -> None: ...

    def is_finished(self) -> bool:
        return True

    def finish(self) -> bool:
        return False


def import_early(uri: str = "") -> None:
    """Start the imports, which take seconds, beside what comes before the first delivery.

    uri: of the store, if it is known: one that is away needs no imports.
    """
    with contextlib.suppress(TrackingError):  # which the first delivery will meet, too
        STORES.ask(uri, str)


def bounded_store(uri: str) -> RunStore:
    """A store of which every method raises TrackingError unless it is done within 30 s."""
    return cast(RunStore, _Bounded(uri))


class _Bounded:
    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            number = STORES.ask(self.uri, _call, self.uri, method, args, kwargs)
            return STORES.answer(number, seconds=CALL_SECONDS)

        return call


def _push(folder: Path) -> tuple[Delivered, float]:
    """How far the store has it, and the processor seconds that this process has used so far.

    Nothing of a run that has ended meanwhile: its end has a request of its own, and deletes the record.
    """
    record = RunFolder.load(folder)
    if record.run.status == "RUNNING":
        open_store(record.run.tracking_uri).deliver(record)
    return record.delivered, time.process_time()


def _deliver(folder: Path) -> Delivered:
    record = RunFolder.load(folder)
    open_store(record.run.tracking_uri).deliver(record)
    return record.delivered


def _call(uri: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return getattr(open_store(uri), method)(*args, **kwargs)
