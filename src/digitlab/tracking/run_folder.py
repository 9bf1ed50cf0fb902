"""The record of one run as files on this disk: written first, delivered to the tracking store after.

    records/<id>/run.json       what the run is: names, status, knobs, tags, process
    records/<id>/metrics.jsonl  one line an epoch
    records/<id>/delivery.json  how far the tracking store has it
    records/<id>/artifacts/     config.yaml, plots, predictions, weights
    records/<id>/.reserve       zeros, removed when the run's end is written: the disk may be full

Knows neither MLflow nor torch. A record is deleted when the store has all of it.
"""

import contextlib
import dataclasses
import json
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from digitlab.config import project
from digitlab.errors import DigitlabError
from digitlab.text.addresses import keep_secrets
from digitlab.text.files import is_file_of_some_kind, write_atomically
from digitlab.text.formats import Format, LaterFormat
from digitlab.text.line_files import Journal
from digitlab.tracking.names import (
    DELIVERY_FILE,
    ERROR_TAG,
    KIND_TAG,
    METRICS_FILE,
    RUN_FILE,
    TRACEBACK_FILE,
)
from digitlab.tracking.process import Process, this_process

OWNER_DIES_WITHIN_SECONDS = 10
RESERVE, RESERVE_BYTES = ".reserve", 1 << 16  # for the last words of a run, when the disk is full

YEAR_OF_THIS = 2020  # no clock that is right is before it

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclasses.dataclass(kw_only=True, slots=True)
class Run:
    """What is known of a run, apart from its metrics and artifacts. Times in ms since the epoch."""

    record_id: str
    study: str
    name: str
    status: Status
    start_time: int
    end_time: int | None = None
    tracking_uri: str
    params: dict[str, str]
    tags: dict[str, str]
    dataset: dict[str, str] = dataclasses.field(default_factory=dict)
    process: Process
    parent: str | None = None  # the record id of the sweep that the run belongs to
    is_resumable: bool = False  # cut short, it is not at its end: the record stays to be continued
    # Whether delivery.json is written before the store is asked for anything; by earlier versions it
    # was written only after a run had been created.
    is_noted_before_delivery: bool = False

    @property
    def is_parent(self) -> bool:
        """Whether it is a sweep's parent run, which trains nothing itself."""
        return KIND_TAG in self.tags


@dataclasses.dataclass(kw_only=True, slots=True)
class Delivered:
    """How far the tracking store has a record."""

    experiment_id: str | None = None
    run_id: str | None = None
    artifact_uri: str | None = None
    num_metric_lines: int = 0
    is_closed: bool = False  # the store has its end: KILLED, and it waits here to be continued
    is_stale: bool = False  # it has been continued, and the store still has that earlier end


_RUN, _DELIVERED = TypeAdapter(Run), TypeAdapter(Delivered)
RUN_FORMAT, DELIVERY_FORMAT = Format(unnumbered=1), Format(unnumbered=1)


class DamagedRecord(DigitlabError):  # noqa: N818  (what is wrong with it)
    """A record whose run.json cannot be read."""


class LaterRecord(DamagedRecord, LaterFormat):
    """A record of a later digitlab, whose run.json or delivery.json this one does not know."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A run's place in a sweep. Its record's name is known beforehand, so that it can be continued.

    sweep: the record of the sweep itself. is_delivered: by the process that trains it; else by the
    sweep's controller, when it has ended.
    """

    record_id: str
    sweep: str
    tracking_uri: str
    name: str
    tags: dict[str, str]
    command: str
    is_delivered: bool = True


class RunFolder:
    """One folder under mlruns/records. Every file is replaced atomically or appended to by lines."""

    def __init__(self, folder: Path, run: Run, delivered: Delivered) -> None:
        self.folder, self.run, self.delivered = folder, run, delivered
        self._lock = FileLock(folder / ".lock")
        self._journal = Journal(folder / METRICS_FILE, _is_of_metrics)
        self._opened = now(), time.monotonic()
        self._logged: set[tuple[int, str]] | None = None  # steps that have a line; None: not looked yet

    @classmethod
    def create(cls, records: Path, *, record_id: str | None = None, **details: Any) -> "RunFolder":
        """A new record, owned by this process until it ends.

        It replaces a damaged run.json in its folder, and keeps the other files there.
        """
        record_id = record_id or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        run = Run(
            record_id=record_id,
            status="RUNNING",
            start_time=now(),
            is_noted_before_delivery=True,
            **details,
        )
        record = cls(records / record_id, run, Delivered())
        try:
            # There already where a kill came between this and the next lines.
            record.artifacts.mkdir(parents=True, exist_ok=True)
            record._lock.acquire(timeout=0)
            record._set_damaged_aside()
            record.save()
            record._reserve()
        except (OSError, Timeout, LaterFormat) as error:
            record.release()
            raise DigitlabError(f"no record can be written to {records}: {error}") from None
        return record

    @classmethod
    def load(cls, folder: Path) -> "RunFolder":
        """Raises DamagedRecord; LaterRecord, which is one, if a later digitlab wrote it."""
        try:
            values = json.loads((folder / RUN_FILE).read_bytes())
            run = _RUN.validate_python(RUN_FORMAT.upgraded(values))
            delivered = _read_delivered(folder)
        except LaterFormat as error:
            raise LaterRecord(f"{folder} cannot be read: {error}") from None
        except (OSError, ValueError, RecursionError) as error:
            cause = str(error).splitlines()[0]
            raise DamagedRecord(f"{folder / RUN_FILE} cannot be read: {cause}") from None
        uri = keep_secrets(run.tracking_uri)  # in old records
        run.tracking_uri = project.present_uri(uri, _mlruns(folder))
        return cls(folder, run, delivered)

    @classmethod
    def named(cls, records: Path, record_id: str) -> "RunFolder | None":
        """The record with exactly this id; None if there is none, whatever the text."""
        folder = records / record_id
        is_one = folder.parent == records and is_file_of_some_kind(folder / RUN_FILE)
        return cls.load(folder) if is_one else None

    @classmethod
    def reopen(cls, folder: Path) -> "RunFolder | None":
        """The record of a run that was cut short, owned by this process to go on with it.

        None if there is none to go on with: no folder, a damaged one, or a run that has ended. A
        sweep's own run goes on whenever its command is repeated.
        """
        lock = FileLock(folder / ".lock")
        try:
            if not (folder / RUN_FILE).exists():
                return None
            lock.acquire(timeout=OWNER_DIES_WITHIN_SECONDS)
            record = cls.load(folder)
        except (Timeout, OSError, DamagedRecord):
            lock.release()
            return None
        record._lock = lock
        is_over = record.run.status == "FINISHED" and not record.run.is_parent
        if is_over or not record.run.is_resumable:
            record.release()
            return None
        record.run.status, record.run.end_time = "RUNNING", None
        record.run.process = this_process()
        record.run.tags.pop(ERROR_TAG, None)
        (record.artifacts / TRACEBACK_FILE).unlink(missing_ok=True)
        record.delivered.is_closed, record.delivered.is_stale = False, True
        record.save_delivered()
        record.save()
        record._reserve()
        return record

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    def sizes(self) -> list[tuple[str, int]]:
        """Path and size in bytes of every artifact."""
        files = [file for file in sorted(self.artifacts.rglob("*")) if file.is_file()]
        return [(str(file.relative_to(self.artifacts)), file.stat().st_size) for file in files]

    def contents(self, artifacts: Sequence[str]) -> dict[str, bytes]:
        """Of those of these artifacts that there are."""
        files = (self.artifacts / name for name in artifacts)
        return {file.name: file.read_bytes() for file in files if file.is_file()}

    @property
    def has_checkpoint(self) -> bool:
        """Whether its training can go on from somewhere else than its beginning."""
        return any(self.folder.glob("checkpoint*"))

    def save(self) -> None:
        uri = project.portable_uri(self.run.tracking_uri, _mlruns(self.folder))
        run = dataclasses.replace(self.run, tracking_uri=uri)
        write_atomically(self.folder / RUN_FILE, _dump(run, RUN_FORMAT))

    @property
    def is_new_to_the_store(self) -> bool:
        """Whether nobody has ever begun to deliver it."""
        return self.run.is_noted_before_delivery and not (self.folder / DELIVERY_FILE).exists()

    def save_delivered(self) -> None:
        write_atomically(self.folder / DELIVERY_FILE, _dump(self.delivered, DELIVERY_FORMAT))

    def redirect(self, tracking_uri: str) -> None:
        """Let the record go to another store, from the beginning."""
        self.run.tracking_uri, self.delivered = tracking_uri, Delivered()
        self.save()
        self.save_delivered()

    def log_metrics(self, metrics: Mapping[str, float], step: int, at: int | None = None) -> None:
        """Append one line; what was logged before an interruption is not logged again.

        at: in ms since the epoch; None: now.
        """
        if self._logged is None:
            lines = [line for line in self.metric_lines() if line["metrics"]]
            self._logged = {(line["step"], min(line["metrics"])) for line in lines}
        if (step, min(metrics)) in self._logged:
            return
        self._logged.add((step, min(metrics)))
        self._journal.append({"step": step, "time": at or now(), "metrics": dict(metrics)})

    def metric_lines(self) -> list[dict[str, Any]]:
        """All complete lines; without metrics where one is damaged, so that the others keep their
        places."""
        return [line or {"step": 0, "time": 0, "metrics": {}} for line in self._journal.lines()]

    @property
    def num_damaged_lines(self) -> int:
        """Of metrics.jsonl: the epochs, or the test, that cannot be read any more."""
        return self._journal.num_damaged()

    def _set_damaged_aside(self) -> None:
        file = self.folder / RUN_FILE
        if not file.exists():
            return
        try:
            self.load(self.folder)
        except LaterFormat:
            raise
        except DamagedRecord:
            file.replace(file.with_suffix(".json.damaged"))
            self.delivered = dataclasses.replace(
                _read_delivered(self.folder), is_closed=False, is_stale=True
            )
            self.save_delivered()
        else:
            raise FileExistsError(f"{self.folder} holds a run already")

    def finish(self, status: Status, tags: Mapping[str, str] | None = None) -> None:
        """The run's true end. Further calls change nothing: the first end is the true one."""
        if self.run.status == "RUNNING":
            self.make_room()
            before = self.run
            self.run = dataclasses.replace(
                before, status=status, end_time=self._end_time(), tags={**before.tags, **(tags or {})}
            )
            try:
                self.save()
            except OSError:  # it has not ended yet: its failure is to be written down
                self.run = before
                raise

    def _end_time(self) -> int:
        """As long after it was opened as it took, though the clock may have been set meanwhile."""
        opened, monotonic = self._opened
        return max(self.run.start_time, opened + round(1000 * (time.monotonic() - monotonic)))

    def make_room(self) -> None:
        """Free the reserve for what is still to be written at the end of a run, on a full disk."""
        (self.folder / RESERVE).unlink(missing_ok=True)

    def _reserve(self) -> None:
        (self.folder / RESERVE).write_bytes(bytes(RESERVE_BYTES))

    def remove_remains(self) -> None:
        """Files that a process was killed while writing: no artifacts."""
        for file in self.artifacts.glob(".*.tmp"):
            file.unlink(missing_ok=True)

    def try_to_own(self) -> bool:
        """Whether no other process works on this record; this one owns it until `release`."""
        try:
            self._lock.acquire(timeout=0)
        except (Timeout, OSError):
            return False
        return (self.folder / RUN_FILE).exists()

    def release(self) -> None:
        self._lock.release()

    def delete(self) -> None:
        """run.json first: what stays of the rest, whatever happens, is of no run."""
        with contextlib.suppress(OSError):
            (self.folder / RUN_FILE).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)


def waiting_records(records: Path) -> Iterator[RunFolder]:
    """Records that are not completely delivered, a sweep's parent run before its trials."""
    waiting = [record for record in all_records(records) if not record.delivered.is_closed]
    yield from sorted(waiting, key=lambda record: record.run.parent is not None)


def ended_here(records: Path, run_id: str) -> RunFolder | None:
    """The record of the run with this id, or start of one, whose end the store does not have yet."""
    for record in waiting_records(records):
        if record.run.status != "RUNNING" and (record.delivered.run_id or " ").startswith(run_id):
            return record
    return None


def all_records(records: Path, record_id: str = "*") -> Iterator[RunFolder]:
    """Every readable record, oldest first. record_id: a pattern that its id matches."""
    for file in sorted(records.glob(f"{record_id}/run.json")):
        with contextlib.suppress(DamagedRecord):  # or deleted meanwhile: `digitlab doctor` names those
            yield RunFolder.load(file.parent)


def now() -> int:
    """Milliseconds since the epoch, after which every store wants its times to be."""
    return max(int(time.time() * 1000), 1)


def wrong_clock() -> str:
    """What is wrong with this machine's clock, if anything is known to be."""
    if (year := time.gmtime().tm_year) >= YEAR_OF_THIS:
        return ""
    return f"this machine's clock is in {year}: set it, since runs take their times from it"


def _read_delivered(folder: Path) -> Delivered:
    """A damaged file counts as nothing delivered: the store is asked, and everything is sent again.

    Raises LaterFormat: a later digitlab may have delivered more than this one knows.
    """
    try:
        values = json.loads((folder / DELIVERY_FILE).read_bytes())
        return _DELIVERED.validate_python(DELIVERY_FORMAT.upgraded(values))
    except (OSError, ValueError, RecursionError):
        return Delivered()


def _is_of_metrics(line: dict[str, Any]) -> bool:
    metrics = line.get("metrics")
    return (
        isinstance(metrics, dict)
        and bool(metrics)
        and all(isinstance(value, int | float) for value in metrics.values())
        and all(isinstance(line.get(name), int) for name in ("step", "time"))
    )


def _mlruns(folder: Path) -> Path:
    """Of the project that a record's folder is in."""
    return folder.parents[1]


def _dump(value: Run | Delivered, form: Format) -> str:
    return json.dumps(form.numbered(dataclasses.asdict(value)), indent=1)
