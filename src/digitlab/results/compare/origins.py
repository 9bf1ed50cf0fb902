"""Runs told apart by the code, data and arithmetic that made them, as if these were knobs.

Reads one record of each kind of code and of rounding. Prints nothing.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from digitlab.config.fingerprint import deciding_digest, differing_source, source_files
from digitlab.errors import UsageError
from digitlab.results.compare.differences import arithmetic_differences, read_document
from digitlab.results.compare.groups import SEED, point
from digitlab.runs.describe import has_code_of_today
from digitlab.runs.document import Document
from digitlab.tracking.names import CANARY_TAG, DATA_TAG, SOURCE_TAG
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun

CODE, IMAGES, ROUNDING = "code", "images", "rounding"  # no knobs of the schema have these names
DIGITS = 7  # shown of a digest

_Key = TypeVar("_Key", bound=Hashable)


def told_apart(store: RunStore, runs: Sequence[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """The runs, with a knob more for each origin in which they differ; and what that is, in lines.

    Code counts if it decides numbers. Rounding counts where one seed was trained with two: seeds
    trained on several processors are seeds all the same.
    """
    documents = _Documents(store)
    runs, notes = _by_code(documents, list(runs))
    for alike in _by(point, runs).values():
        if len({_images(run) for run in alike}) > 1:
            runs = _with_knob(runs, IMAGES, {run.run_id: _images(run) for run in alike})
    roundings: dict[str, StoredRun] = {}
    for alike in _by(point, runs).values():
        of_a_seed = _by(lambda run: run.params.get(SEED, ""), alike).values()
        if any(len({_canary(run) for run in own}) > 1 for own in of_a_seed):
            runs = _with_knob(runs, ROUNDING, {run.run_id: _canary(run)[:DIGITS] for run in alike})
            roundings |= {_canary(run): run for run in alike}
    return runs, notes + _rounding_notes(documents, list(roundings.values()))


class _Documents:
    """Records read once; None where there is none to read."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._read: dict[str, Document | None] = {}

    def of(self, run: StoredRun) -> Document | None:
        if run.run_id not in self._read:
            try:
                self._read[run.run_id] = _by_code_of_today(read_document(self._store, run), run)
            except UsageError:
                self._read[run.run_id] = None
        return self._read[run.run_id]


def _by_code_of_today(document: Document, run: StoredRun) -> Document:
    """With today's files where these do the same as the run's."""
    if not has_code_of_today(document, run.tags):
        return document
    return dataclasses.replace(document, code=dataclasses.replace(document.code, files=source_files()))


def _by_code(documents: _Documents, runs: list[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """By the source that decides numbers: one record tells it for all runs of the same source."""
    first = {run.tags.get(SOURCE_TAG, ""): run for run in reversed(runs)}
    if len(first) < 2:
        return runs, []
    read = {source: documents.of(run) for source, run in first.items()}
    digests = {s: deciding_digest(d.code.files) if d else s for s, d in read.items()}
    if len(set(digests.values())) < 2:
        return runs, []
    known = [document.code.files for document in read.values() if document]
    names = sorted({name for files in known for name in differing_source(known[0], files)})
    what = names[0] if len(names) == 1 else f"{len(names)} files" if names else "unrecorded"
    values = {run.run_id: f"{what} {digests[run.tags.get(SOURCE_TAG, '')][:DIGITS]}" for run in runs}
    origin = {
        digests[s]: f"{digests[s][:DIGITS]} {_origin(read[s], first[s])}" for s in reversed(first)
    }
    listed = f": {', '.join(names)}" if names else ""
    note = f"The code that decides numbers differs{listed} ({'; '.join(origin.values())})."
    return _with_knob(runs, CODE, values), [note]


def _origin(document: Document | None, run: StoredRun) -> str:
    """`of commit 1a2b3c4 with uncommitted changes, 2026-11-26 14:02`."""
    if document is None:
        return f"is not recorded in run {run.short_id}"
    changed = " with uncommitted changes" if document.code.dirty == "true" else ""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.start_time / 1000))
    return f"of commit {document.code.commit[:DIGITS]}{changed}, {when}"


def _rounding_notes(documents: _Documents, runs: Sequence[StoredRun]) -> list[str]:
    lines = []
    for run in runs[1:]:
        before, now = documents.of(runs[0]), documents.of(run)
        reasons = "; ".join(arithmetic_differences(before, now)) if before and now else "not recorded"
        pair = f"{_canary(run)[:DIGITS]} and {_canary(runs[0])[:DIGITS]}"
        lines.append(f"The same seed was trained with other rounding, {pair}: {reasons}.")
    return lines


def _by(key: Callable[[StoredRun], _Key], runs: Sequence[StoredRun]) -> dict[_Key, list[StoredRun]]:
    groups: dict[_Key, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _with_knob(runs: Sequence[StoredRun], knob: str, values: Mapping[str, str]) -> list[StoredRun]:
    """values: by run id; a run without one stays as it is."""
    return [
        dataclasses.replace(run, params=run.params | {knob: values[run.run_id]})
        if run.run_id in values
        else run
        for run in runs
    ]


def _canary(run: StoredRun) -> str:
    return run.tags.get(CANARY_TAG, "")


def _images(run: StoredRun) -> str:
    digests = sorted((k, v) for k, v in run.tags.items() if k.startswith(DATA_TAG))
    return hashlib.sha256(repr(digests).encode()).hexdigest()[:DIGITS]
