"""Why trials run and how long they will take, by earlier runs."""

import functools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from digitlab.config.checking import as_param, flatten
from digitlab.config.fingerprint import (
    WITHOUT_EFFECT,
    differing_source,
    fingerprint,
    library_versions,
    source_files,
)
from digitlab.errors import TrackingError, UsageError
from digitlab.sweep.manifest import Manifest, Trial
from digitlab.sweep.planning.engines import num_side_by_side
from digitlab.tracking.delivery import bounded_store
from digitlab.tracking.names import DATA_TAG, DEVICE_TAG, ENGINE_TAG, FINGERPRINT_TAG, SOURCE_TAG
from digitlab.tracking.stored_run import StoredRun

if TYPE_CHECKING:
    from digitlab.runs.document import Document


class Reasons:
    """Why a trial is not finished: what differs from the earlier run most like it."""

    def __init__(self, manifest: Manifest, runs: Sequence[StoredRun]) -> None:
        self._manifest, self._runs = manifest, runs
        self._documents: dict[str, Document | None] = {}  # one of each source

    def why(self, trial: Trial) -> str:
        flat = _deciding_knobs(trial)
        closest = min(
            self._runs,
            key=lambda run: (len(_differences(flat, run.params)), -run.start_time),
            default=None,
        )
        if closest is None:
            return "never run"
        differing = _differences(flat, closest.params)
        if not differing:
            return self._other_than_knobs(trial, closest)
        if all(knob in trial.swept or f"{knob.partition('.')[0]}" in trial.swept for knob in differing):
            return "never run"
        changes = [
            f"{k} is {flat.get(k, 'gone')}, was {closest.params.get(k, 'not there')}" for k in differing
        ]
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        return f"{'; '.join(changes[:3])}{more} in run {closest.short_id}"

    def why_again(self, pending: Sequence[Trial]) -> str | None:
        """One sentence for all pending trials whose knobs a finished run has; None without one."""
        again = [
            (trial, run)
            for trial in pending
            if (run := self._by_knobs.get(frozenset(_deciding_knobs(trial).items())))
        ]
        if not again:
            return None
        of_each_source = {run.tags.get(SOURCE_TAG): (trial, run) for trial, run in reversed(again)}
        reasons = [self._other_than_knobs(*pair) for pair in of_each_source.values()]
        trials = "1 trial runs" if len(again) == 1 else f"{len(again)} trials run"
        return f"{trials} again that had finished: {'; '.join(reasons)}"

    @functools.cached_property
    def _by_knobs(self) -> dict[frozenset[tuple[str, str]], StoredRun]:
        return {frozenset(_deciding(run.params).items()): run for run in self._runs}

    def _other_than_knobs(self, trial: Trial, run: StoredRun) -> str:
        """Why a run with the trial's knobs is not its result."""
        if not run.tags[FINGERPRINT_TAG]:
            return f"run {run.short_id} went on by force over a change"
        if run.tags[FINGERPRINT_TAG] == _fingerprint_by_todays_code(trial, run):
            return f"other data or device than run {run.short_id}"
        document = self._document_of(run)
        if document is None:
            return f"source changed since run {run.short_id}: which files is not known any more"
        versions = [
            f"{name} is {version}, was {document.versions.get(name)} in run {run.short_id}"
            for name, version in library_versions().items()
            if version != document.versions.get(name)
        ]
        files = differing_source(document.code.files, source_files())
        more = f" and {len(files) - 4} more" if len(files) > 4 else ""
        source = f"source changed since run {run.short_id}: {', '.join(files[:4])}{more}"
        reasons = [*versions, *([source] if files else [])]
        return "; ".join(reasons) or f"run {run.short_id} was made by other source"

    def _document_of(self, run: StoredRun) -> "Document | None":
        """Of any run of the same source; None if none can be read."""
        from digitlab.results.compare.differences import read_document  # imports torch

        source = run.tags.get(SOURCE_TAG, "")
        if source not in self._documents:
            try:
                store = bounded_store(self._manifest.tracking_uri)
                self._documents[source] = read_document(store, run)
            except (TrackingError, UsageError):
                self._documents[source] = None
        return self._documents[source]


def estimate_seconds(configs: Iterable[Mapping[str, Any]], runs: Sequence[StoredRun]) -> float | None:
    """Training time of all of them, one after another; None: unknown.

    The median time of an epoch of the same model, data set and batch size, times the epochs.
    """
    samples: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        epochs = int(run.params.get("epochs", "0"))
        if run.end_time and epochs:
            together = num_side_by_side(run.tags.get(ENGINE_TAG))  # these trials took that time
            samples.setdefault(_kind(run.params), []).append(run.seconds / epochs / together)
    total = 0.0
    for values in configs:
        params = {knob: as_param(value) for knob, value in flatten(values).items()}
        known = samples.get(_kind(params))
        if not known:
            return None
        total += statistics.median(known) * int(params["epochs"])
    return total


def _kind(params: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(params.get(knob, "") for knob in ("model.name", "data.name", "batch_size"))


def _deciding_knobs(trial: Trial) -> dict[str, str]:
    return _deciding({k: as_param(v) for k, v in flatten(trial.values).items()})


def _deciding(params: Mapping[str, str]) -> dict[str, str]:
    return {knob: value for knob, value in params.items() if knob not in WITHOUT_EFFECT}


def _differences(now: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    known = _deciding(before).keys()
    return [k for k in [*now, *sorted(known - now.keys())] if now.get(k) != before.get(k)]


def _fingerprint_by_todays_code(trial: Trial, run: StoredRun) -> str:
    """Of the trial, on the run's device and data."""
    data = {tag.removeprefix(DATA_TAG): v for tag, v in run.tags.items() if tag.startswith(DATA_TAG)}
    return fingerprint(trial.config(), device=run.tags[DEVICE_TAG], data=data)
