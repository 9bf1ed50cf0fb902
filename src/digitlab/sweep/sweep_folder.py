"""A sweep's folder on this disk: its frozen manifest, and the journal of what has happened since.

    mlruns/sweeps/<id>/manifest.json   settings and trials, every one with its whole configuration
    mlruns/sweeps/<id>/journal.jsonl   one line an event, appended by the process that owns the sweep
    mlruns/sweeps/<id>/.lock           held by that process

Knows neither Hydra nor MLflow nor torch.
"""

import dataclasses
import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from digitlab.config import project
from digitlab.errors import DigitlabError, UsageError
from digitlab.results.trial_result import TrialResult
from digitlab.sweep.manifest import Manifest
from digitlab.text.files import write_atomically
from digitlab.text.formats import LaterFormat
from digitlab.text.line_files import Journal
from digitlab.tracking.names import MANIFEST_FILE
from digitlab.tracking.run_folder import now

ID_LENGTH = 8
EVENTS: dict[str, dict[str, type]] = {  # and what those have that others rely on
    "asked": {"point": int, "params": dict},
    "started": {"number": int},
    "ended": {"number": int, "point": int, "name": str, "state": str, "swept": dict, "died": bool},
    "delivered": {"number": int, "run_id": str},
    "used up": {"trials": int},
    "reached": {"trials": int},
}


class DamagedManifest(DigitlabError):  # noqa: N818  (what is wrong with it)
    """A manifest that cannot be read: the sweep's command freezes it anew."""


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / ".lock")
        self.journal = Journal(folder / "journal.jsonl", _is_event)

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def tracebacks(self) -> Path:
        return self.folder / "tracebacks"

    def freeze(self, manifest: Manifest) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / MANIFEST_FILE, json.dumps(manifest.to_json(self._mlruns)))

    def manifest(self) -> Manifest:
        """Raises DamagedManifest, or LaterFormat, with which nothing is wrong."""
        try:
            values = json.loads((self.folder / MANIFEST_FILE).read_bytes())
            return Manifest.from_json(values, self._mlruns)
        except LaterFormat as error:
            raise LaterFormat(f"the manifest of sweep {self.id} cannot be read: {error}") from None
        except (OSError, ValueError, LookupError, TypeError, RecursionError, UsageError) as error:
            planned = (event.get("command") for event in self.events() if event["event"] == "planned")
            raise DamagedManifest(
                f"the manifest of sweep {self.id} cannot be read: {error}; "
                f"to go on, repeat its command: {next(planned, 'digitlab sweep ...')}"
            ) from None

    @property
    def _mlruns(self) -> Path:
        return self.folder.parents[1]

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
            return False  # no such file, or one that may not even be read
        return False

    def release(self) -> None:
        self._lock.release()

    def log(self, event: str, **details: Any) -> None:
        """One event, written at once."""
        self.journal.append({"event": event, "time": now(), **details})

    def events(self) -> list[dict[str, Any]]:
        """Without what is damaged."""
        return [event for event in self.journal.lines() if event is not None]

    def has_ended(self) -> bool:
        """Whether the last event is the end of the whole sweep."""
        return self._last_event() == "finished"

    def is_stopped(self) -> bool:
        """Whether the last command on it has ended by a limit of its own, with trials left."""
        return self._last_event() == "stopped"

    def _last_event(self) -> str | None:
        events = self.events()
        return events[-1]["event"] if events else None

    def num_invocations(self) -> int:
        """How often work on the sweep has begun."""
        return len(self._events("working"))

    def results(self) -> dict[int, TrialResult]:
        """The last end of every trial, by its number."""
        ends: dict[int, TrialResult] = {}
        for event in self.events():
            if event["event"] == "ended":
                ends[event["number"]] = TrialResult.from_json(event)
            elif event["event"] == "delivered" and (result := ends.get(event["number"])):
                ends[event["number"]] = dataclasses.replace(result, run_id=event["run_id"])
        return ends

    def failures(self) -> Counter[int]:
        """How often each trial has failed by itself; one that was cut short goes on where it was."""
        ends = self._events("ended")
        return Counter(e["number"] for e in ends if e["state"] == "FAILED" and not e["died"])

    def _events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["event"] == name]


def claim(
    planned: Manifest, *, rerun: bool, say: Callable[[str], None]
) -> tuple[SweepFolder, Manifest]:
    """The planned sweep's folder, owned, with its frozen manifest; executed as is asked for now.

    rerun: a further folder for the same sweep.

    Raises:
        UsageError: another process works on it.
    """
    sweeps = project.sweeps()
    known = None if rerun else newest_of(sweeps, planned.key)
    if known:
        known.own()
        return known, _mended(known, planned, say).executed_like(planned)
    manifest = dataclasses.replace(planned, id=new_id(sweeps, planned.key))
    folder = SweepFolder(sweeps / manifest.id)
    folder.folder.mkdir(parents=True, exist_ok=True)
    folder.own()
    folder.freeze(manifest)
    folder.log("planned", command=manifest.command)
    return folder, manifest


def _mended(folder: SweepFolder, planned: Manifest, say: Callable[[str], None]) -> Manifest:
    """As it was frozen. A damaged manifest is frozen anew: what has the same key is the same.

    Raises LaterFormat: that of a later digitlab is not damaged.
    """
    if num_lines := folder.journal.set_damaged_aside():
        say(
            f"{num_lines} damaged lines of its journal were set aside (journal.jsonl.damaged in "
            f"{folder.folder}): what they said is in the store, or done again"
        )
    try:
        return folder.manifest()
    except DamagedManifest:
        frozen = dataclasses.replace(planned, id=folder.id)
        file = folder.folder / MANIFEST_FILE
        say(f"{file} was damaged: it is made anew, and kept as {file.name}.damaged")
        shutil.copyfile(file, file.with_suffix(".json.damaged"))
        folder.freeze(frozen)
        return frozen


def all_sweeps(sweeps: Path) -> list[SweepFolder]:
    """Those with a manifest, newest first."""
    files = sorted(sweeps.glob("*/manifest.json"), key=lambda file: -file.stat().st_mtime)
    return [SweepFolder(file.parent) for file in files]


def newest_of(sweeps: Path, key: str) -> SweepFolder | None:
    """The sweep of that key, or its last repetition by --rerun."""
    start = key[:ID_LENGTH]
    matches = [f for f in all_sweeps(sweeps) if f.id == start or f.id.startswith(f"{start}-")]
    return max(matches, key=lambda folder: _repetition(folder.id), default=None)


def new_id(sweeps: Path, key: str) -> str:
    """`3f2a91c0`, then `3f2a91c0-2` and so on for repetitions of the same sweep."""
    last = newest_of(sweeps, key)
    return key[:ID_LENGTH] if last is None else f"{key[:ID_LENGTH]}-{_repetition(last.id) + 1}"


def find_sweep(sweeps: Path, word: str) -> SweepFolder:
    """The sweep with that id, start of an id, or name.

    Raises:
        UsageError: there is none, or more than one.
    """
    known = all_sweeps(sweeps)
    exact = [folder for folder in known if folder.id == word]
    matches = exact or [folder for folder in known if word and folder.id.startswith(word)]
    matches = matches or [folder for folder in known if _name(folder) == word]
    if not matches:
        raise UsageError(f"no sweep {word}: `digitlab sweeps` lists them")
    if len(matches) > 1:
        raise UsageError(f"{word} means {len(matches)} sweeps: {', '.join(f.id for f in matches)}")
    return matches[0]


def _name(folder: SweepFolder) -> str | None:
    try:
        return folder.manifest().name
    except DigitlabError:
        return None


def _repetition(sweep_id: str) -> int:
    number = sweep_id.partition("-")[2]
    return int(number) if number.isdigit() else 1


def _is_event(line: dict[str, Any]) -> bool:
    event = line.get("event")
    needed = EVENTS.get(event, {}) if isinstance(event, str) else {"event": str}
    return all(isinstance(line.get(name), kind) for name, kind in needed.items())
