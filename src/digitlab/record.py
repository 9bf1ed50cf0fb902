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
import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from digitlab import project
from digitlab.addresses import keep_secrets
from digitlab.errors import DigitlabError, reason
from digitlab.files import is_file_of_some_kind
from digitlab.provenance import Process, this_process

OWNER_DIES_WITHIN_SECONDS = 10
RESERVE, RESERVE_BYTES = ".reserve", 1 << 16  # for the last words of a run, when the disk is full

ENGINE_TAG = "digitlab.engine"  # how a trial of a sweep was trained

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


@dataclasses.dataclass(kw_only=True, slots=True)
class Delivered:
    """How far the tracking store has a record."""

    experiment_id: str | None = None
    run_id: str | None = None
    num_metric_lines: int = 0
    is_closed: bool = False  # the store has its end: KILLED, and it waits here to be continued
    is_stale: bool = False  # it has been continued, and the store still has that earlier end


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A run's place in a sweep. Its record's name is known beforehand, so that it can be continued.

    sweep: the record of the sweep itself.
    """

    record_id: str
    sweep: str
    tracking_uri: str
    name: str
    tags: dict[str, str]
    command: str


class Record:
    """One folder under mlruns/records. Every file is replaced atomically or appended to by lines."""

    def __init__(self, folder: Path, run: Run, delivered: Delivered) -> None:
        self.folder, self.run, self.delivered = folder, run, delivered
        self._lock = FileLock(folder / ".lock")
        self._logged: set[tuple[int, str]] | None = None  # steps that have a line; None: not looked yet

    @classmethod
    def create(cls, records: Path, *, record_id: str | None = None, **details: Any) -> "Record":
        """A new record, owned by this process until it ends."""
        record_id = record_id or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        run = Run(record_id=record_id, status="RUNNING", start_time=now(), **details)
        record = cls(records / record_id, run, Delivered())
        try:
            # There already where a kill came between this and the next lines.
            record.artifacts.mkdir(parents=True, exist_ok=True)
            record._lock.acquire(timeout=0)
            if (record.folder / "run.json").exists():
                raise FileExistsError(f"{record.folder} holds a run already")
            record.save()
            record._reserve()
        except (OSError, Timeout) as error:
            record.release()
            raise DigitlabError(f"no record can be written to {records}: {error}") from None
        return record

    @classmethod
    def load(cls, folder: Path) -> "Record":
        values = json.loads((folder / "run.json").read_text())
        values["process"] = Process(**values["process"])
        uri = keep_secrets(values["tracking_uri"])  # in old records
        values["tracking_uri"] = project.present_uri(uri, _mlruns(folder))
        delivery = folder / "delivery.json"
        delivered = json.loads(delivery.read_text()) if delivery.exists() else {}
        return cls(folder, Run(**values), Delivered(**delivered))

    @classmethod
    def named(cls, records: Path, record_id: str) -> "Record | None":
        """The one with exactly this id; None if no record has it, whatever text it is."""
        folder = records / record_id
        is_one = folder.parent == records and is_file_of_some_kind(folder / "run.json")
        return cls.load(folder) if is_one else None

    @classmethod
    def reopen(cls, folder: Path) -> "Record | None":
        """The record of a run that was cut short, owned by this process to go on with it.

        None if there is none to go on with: no folder, a damaged one, or a run that has ended.
        """
        lock = FileLock(folder / ".lock")
        try:
            if not (folder / "run.json").exists():
                return None
            lock.acquire(timeout=OWNER_DIES_WITHIN_SECONDS)
            record = cls.load(folder)
        except (Timeout, OSError, ValueError, TypeError):
            lock.release()
            return None
        record._lock = lock
        if record.run.status == "FINISHED" or not record.run.is_resumable:
            record.release()
            return None
        record.run.status, record.run.end_time = "RUNNING", None
        record.run.process = this_process()
        record.run.tags.pop("digitlab.error", None)
        (record.artifacts / "traceback.txt").unlink(missing_ok=True)
        record.delivered.is_closed, record.delivered.is_stale = False, True
        record.save_delivered()
        record.save()
        record._reserve()
        return record

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def has_checkpoint(self) -> bool:
        """Whether its training can go on from somewhere else than its beginning."""
        return any(self.folder.glob("checkpoint*"))

    def save(self) -> None:
        uri = project.portable_uri(self.run.tracking_uri, _mlruns(self.folder))
        write_atomically(
            self.folder / "run.json", _dump(dataclasses.replace(self.run, tracking_uri=uri))
        )

    def save_delivered(self) -> None:
        write_atomically(self.folder / "delivery.json", _dump(self.delivered))

    def redirect(self, tracking_uri: str) -> None:
        """Let the record go to another store, from the beginning."""
        self.run.tracking_uri, self.delivered = tracking_uri, Delivered()
        self.save()
        self.save_delivered()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append one line; what was logged before an interruption is not logged again."""
        if self._logged is None:
            self._logged = {(line["step"], min(line["metrics"])) for line in self._mend_metrics()}
        if (step, min(metrics)) in self._logged:
            return
        self._logged.add((step, min(metrics)))
        line = json.dumps({"step": step, "time": now(), "metrics": dict(metrics)})
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(line + "\n")

    def metric_lines(self) -> list[dict[str, Any]]:
        """All complete lines; a line cut off by a crash is left out."""
        file = self.folder / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _mend_metrics(self) -> list[dict[str, Any]]:
        """The complete lines, alone in the file: a further one must not follow half of one."""
        file, lines = self.folder / "metrics.jsonl", self.metric_lines()
        if file.exists() and not file.read_bytes().endswith(b"\n"):
            write_atomically(file, "".join(json.dumps(line) + "\n" for line in lines))
        return lines

    def finish(self, status: Status, tags: Mapping[str, str] | None = None) -> None:
        """The run's true end. Further calls change nothing: the first end is the true one."""
        if self.run.status == "RUNNING":
            self.run.status, self.run.end_time = status, now()
            self.run.tags |= tags or {}
            self.save()

    def make_room(self) -> None:
        """For what is still to be written of a run that ends on a full disk."""
        (self.folder / RESERVE).unlink(missing_ok=True)

    def _reserve(self) -> None:
        (self.folder / RESERVE).write_bytes(bytes(RESERVE_BYTES))

    def try_to_own(self) -> bool:
        """Whether nobody else is working on this record; it stays ours until `release`."""
        try:
            self._lock.acquire(timeout=0)
        except (Timeout, OSError):
            return False
        return (self.folder / "run.json").exists()

    def release(self) -> None:
        self._lock.release()

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def waiting_records(records: Path) -> Iterator[Record]:
    """Those that a store is still to be told something of, a sweep's own before its trials'."""
    found = [record for record in all_records(records) if not record.delivered.is_closed]
    yield from sorted(found, key=lambda record: record.run.parent is not None)


def all_records(records: Path) -> Iterator[Record]:
    """Every readable record, oldest first."""
    for file in sorted(records.glob("*/run.json")):
        try:
            yield Record.load(file.parent)
        except (OSError, ValueError, TypeError):
            continue  # deleted by its owner meanwhile, or damaged: `digitlab doctor` names those


def write_atomically(file: Path, content: str | bytes) -> None:
    """Either the old content or the new one is there, whatever happens on the way.

    Raises OSError with the file's name; also if a device or a pipe is there, which would be replaced.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        if file.exists() and not file.is_file():
            raise OSError(errno.EINVAL, "is no regular file")
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(file)
    except OSError as error:
        raise OSError(error.errno, reason(error), str(file)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


def _mlruns(folder: Path) -> Path:
    """Of the project that a record's folder is in."""
    return folder.parents[1]


def _dump(value: Run | Delivered) -> str:
    return json.dumps(dataclasses.asdict(value), indent=1)
