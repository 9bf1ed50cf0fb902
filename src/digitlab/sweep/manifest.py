"""A sweep as it was frozen before its first trial started, and the journal of what happened since.

    mlruns/sweeps/<id>/manifest.json   settings and trials, every one with its whole configuration
    mlruns/sweeps/<id>/journal.jsonl   one line an event, appended by the process that owns the sweep
    mlruns/sweeps/<id>/.lock           held by that process

Nothing here reads conf/. Knows neither Hydra nor MLflow nor torch.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from digitlab.config import project
from digitlab.config.checking import recorded_config
from digitlab.config.schema import Config
from digitlab.errors import DigitlabError, UsageError
from digitlab.results.trial_result import TrialResult
from digitlab.sweep.settings import Settings, to_settings, to_values
from digitlab.text.addresses import keep_secrets
from digitlab.text.files import write_atomically
from digitlab.text.line_files import end_at_a_line, parsed, whole_lines
from digitlab.tracking.names import MANIFEST_FILE
from digitlab.tracking.run_folder import now

FORMAT = 1
ID_LENGTH = 8
EVENTS: dict[str, dict[str, type]] = {  # and what those have that others rely on
    "asked": {"point": int, "params": dict},
    "started": {"number": int},
    "ended": {"number": int, "point": int, "name": str, "state": str, "swept": dict, "died": bool},
    "used up": {"trials": int},
}
BEFORE_ENGINES = {"engine": {"name": "sequential"}}  # for manifests that have none


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One configuration of a sweep. swept: the knobs that vary, as typed. point: see TrialResult."""

    number: int
    point: int
    name: str
    swept: dict[str, str]
    values: dict[str, Any]
    fingerprint: str

    def config(self) -> Config:
        return recorded_config(self.values)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """One choice of groups of a search, composed: values are laid over it without reading conf/."""

    groups: dict[str, str]
    values: dict[str, Any]


@dataclasses.dataclass(slots=True, kw_only=True)
class Manifest:
    """Everything that is needed to finish a sweep. trials: empty for a search, which makes its own.

    key: hash of what would be run; the same command finds its sweep by it.
    """

    id: str
    key: str
    name: str
    study: str
    command: str
    created: int
    device: str
    settings: Settings
    tracking_uri: str
    trials: list[Trial]
    axes: dict[str, Any] = dataclasses.field(default_factory=dict)
    bases: list[Base] = dataclasses.field(default_factory=list)

    @property
    def is_search(self) -> bool:
        return self.settings.sweep.search != "grid"

    @property
    def num_trials(self) -> int:
        """Of a search: that it will have made at its end."""
        if not self.is_search:
            return len(self.trials)
        return (self.settings.sweep.trials or 0) * self.settings.sweep.repeats

    def executed_like(self, other: "Manifest") -> "Manifest":
        """With the executor and engine of another: how a sweep is executed is not frozen."""
        executor, engine = other.settings.executor, other.settings.engine
        settings = dataclasses.replace(self.settings, executor=executor, engine=engine)
        return dataclasses.replace(self, settings=settings)


def manifest_key(parts: Sequence[Any]) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / ".lock")
        self._journal: int | None = None

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def tracebacks(self) -> Path:
        return self.folder / "tracebacks"

    def freeze(self, manifest: Manifest) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {
            field.name: getattr(manifest, field.name)
            for field in dataclasses.fields(manifest)
            if field.name not in ("settings", "trials", "bases")
        }
        values |= {
            "format": FORMAT,
            "tracking_uri": project.portable_uri(manifest.tracking_uri, self.folder.parents[1]),
            "settings": to_values(manifest.settings),
            "trials": [dataclasses.asdict(trial) for trial in manifest.trials],
            "bases": [dataclasses.asdict(base) for base in manifest.bases],
        }
        write_atomically(self.folder / MANIFEST_FILE, json.dumps(values))

    def manifest(self) -> Manifest:
        """Raises DigitlabError if it is damaged or of a later version."""
        try:
            values = json.loads((self.folder / MANIFEST_FILE).read_bytes())
            if not isinstance(values, dict):
                raise ValueError("it holds no object")
            if values.pop("format") != FORMAT:
                raise ValueError("another format")
            known = BEFORE_ENGINES | values.pop("settings")
            known["engine"].pop("exact", None)  # in old manifests
            settings = to_settings(known)
            trials = [Trial(**trial) for trial in values.pop("trials")]
            bases = [Base(**base) for base in values.pop("bases")]
            uri = keep_secrets(values.pop("tracking_uri"))  # in old manifests
            uri = project.present_uri(uri, self.folder.parents[1])
            return Manifest(settings=settings, trials=trials, bases=bases, tracking_uri=uri, **values)
        except (OSError, ValueError, LookupError, TypeError, RecursionError, UsageError) as error:
            planned = (event.get("command") for event in self.events() if event["event"] == "planned")
            raise DigitlabError(
                f"the manifest of sweep {self.id} cannot be read: {error}; "
                f"to go on, repeat its command: {next(planned, 'digitlab sweep ...')}"
            ) from None

    def mend(self) -> int:
        """Set damaged lines of the journal aside; returns how many. For whoever owns the sweep."""
        lines = whole_lines(self._journal_file)
        damaged = [line for line in lines if parsed(line, _is_event) is None]
        if damaged:
            with self._journal_file.with_suffix(".jsonl.damaged").open("ab") as file:
                file.writelines(line + b"\n" for line in damaged)
            whole = (line + b"\n" for line in lines if line not in damaged)
            write_atomically(self._journal_file, b"".join(whole))
        return len(damaged)

    @property
    def num_damaged_lines(self) -> int:
        """Of the journal."""
        return sum(parsed(line, _is_event) is None for line in whole_lines(self._journal_file))

    def own(self) -> None:
        """Raises UsageError while another process works on this sweep."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"sweep {self.id} is being worked on by another process: wait for it, or stop it"
            ) from None

    def is_owned(self) -> bool:
        """Whether some process, perhaps this one, works on it; asked without writing anything."""
        try:
            with (self.folder / ".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # no such file, or one that nobody may even read
        return False

    def release(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None
        self._lock.release()

    def log(self, event: str, **details: Any) -> None:
        """One line, written at once."""
        if self._journal is None:
            end_at_a_line(self._journal_file)
            self._journal = os.open(self._journal_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        line = json.dumps({"event": event, "time": now(), **details})
        os.write(self._journal, line.encode() + b"\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """Without what is damaged."""
        events = (parsed(line, _is_event) for line in whole_lines(self._journal_file))
        return (event for event in events if event is not None)

    def has_ended(self) -> bool:
        """Whether the last event is the end of the whole sweep."""
        return [event["event"] for event in self.events()][-1:] == ["finished"]

    def num_invocations(self) -> int:
        """How often work on the sweep has begun."""
        return sum(event["event"] == "working" for event in self.events())

    def results(self) -> dict[int, TrialResult]:
        """The last end of every trial, by its number."""
        ends = (event for event in self.events() if event["event"] == "ended")
        return {end["number"]: TrialResult.from_json(end) for end in ends}

    def failures(self) -> Counter[int]:
        """How often each trial has failed by itself; one that was cut short goes on where it was."""
        ends = (event for event in self.events() if event["event"] == "ended")
        return Counter(e["number"] for e in ends if e["state"] == "FAILED" and not e["died"])

    @property
    def _journal_file(self) -> Path:
        return self.folder / "journal.jsonl"


def all_sweeps(sweeps: Path) -> list[SweepFolder]:
    """Those with a manifest, newest first."""
    files = sorted(sweeps.glob("*/manifest.json"), key=lambda file: -file.stat().st_mtime)
    return [SweepFolder(file.parent) for file in files]


def newest_of(sweeps: Path, key: str) -> SweepFolder | None:
    """The sweep of that key, or its last repetition by --rerun."""
    start = key[:ID_LENGTH]
    found = [f for f in all_sweeps(sweeps) if f.id == start or f.id.startswith(f"{start}-")]
    return max(found, key=lambda folder: _repetition(folder.id), default=None)


def new_id(sweeps: Path, key: str) -> str:
    """`3f2a91c0`, then `3f2a91c0-2` and so on for repetitions of the same sweep."""
    last = newest_of(sweeps, key)
    return key[:ID_LENGTH] if last is None else f"{key[:ID_LENGTH]}-{_repetition(last.id) + 1}"


def find_sweep(sweeps: Path, wanted: str) -> SweepFolder:
    """The sweep with that id, start of an id, or name.

    Raises:
        UsageError: there is none, or more than one.
    """
    known = all_sweeps(sweeps)
    exact = [folder for folder in known if folder.id == wanted]
    found = exact or [folder for folder in known if wanted and folder.id.startswith(wanted)]
    found = found or [folder for folder in known if _name(folder) == wanted]
    if not found:
        raise UsageError(f"no sweep {wanted}: `digitlab sweeps` lists them")
    if len(found) > 1:
        raise UsageError(f"{wanted} means {len(found)} sweeps: {', '.join(f.id for f in found)}")
    return found[0]


def _name(folder: SweepFolder) -> str | None:
    try:
        return folder.manifest().name
    except DigitlabError:
        return None


def _is_event(line: dict[str, Any]) -> bool:
    event = line.get("event")
    needed = EVENTS.get(event, {}) if isinstance(event, str) else {"event": str}
    return all(isinstance(line.get(name), kind) for name, kind in needed.items())


def _repetition(sweep_id: str) -> int:
    number = sweep_id.partition("-")[2]
    return int(number) if number.isdigit() else 1
