"""Which trials need not run, why the others must and how long they will take, by earlier runs."""

import contextlib
import dataclasses
import json
import re
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from digitlab.config import project
from digitlab.config.checking import as_param, flatten
from digitlab.config.fingerprint import WITHOUT_EFFECT, differing_source, source_digest, source_files
from digitlab.errors import TrackingError
from digitlab.results.trial_result import TrialResult
from digitlab.sweep.manifest import Manifest, Trial
from digitlab.tracking.connection.location import unreachable
from digitlab.tracking.delivery import bounded_store
from digitlab.tracking.run_folder import ENGINE_TAG, waiting_records
from digitlab.tracking.store import FINGERPRINT_TAG, RunStore
from digitlab.tracking.stored_run import StoredRun, undelivered

SWEEP_TAG = "sweep"


def finished_runs(study: str, uri: str) -> list[StoredRun]:
    """The study's FINISHED runs: in the store, if it is there and answers, and still on this disk."""
    stored: list[StoredRun] = []
    if unreachable(uri) is None:  # what is not there yet is not waited for
        with contextlib.suppress(TrackingError):  # who starts the sweep will be told, and go on
            stored = bounded_store(uri).finished(study)
    waiting = [
        undelivered(record)
        for record in waiting_records(project.records())
        if record.run.status == "FINISHED" and record.run.study == study
    ]
    return [*stored, *(run for run in waiting if FINGERPRINT_TAG in run.tags)]


def reusable(manifest: Manifest, runs: Iterable[StoredRun]) -> dict[int, StoredRun]:
    """For each trial that is finished its run; of several the sweep's own, then the first."""
    by_print: dict[str, StoredRun] = {}
    for run in runs:
        known = by_print.get(run.tags[FINGERPRINT_TAG])
        if known is None or (belongs(run, manifest.id) and not belongs(known, manifest.id)):
            by_print[run.tags[FINGERPRINT_TAG]] = run
    return {t.number: by_print[t.fingerprint] for t in manifest.trials if t.fingerprint in by_print}


def belongs(run: StoredRun, sweep_id: str) -> bool:
    return bool(sweep_id) and sweep_id in run.tags.get(SWEEP_TAG, "").split()


def result_of(trial: Trial, run: StoredRun) -> TrialResult:
    """What the trial reached, without its history."""
    return TrialResult(
        number=trial.number,
        point=trial.point,
        name=trial.name,
        state="FINISHED",
        swept=trial.swept,
        run_id=run.run_id if run.delivered else None,
        metrics=run.metrics,
        seconds=((run.end_time or run.start_time) - run.start_time) / 1000,
        reused=True,
    )


def with_history(trial: Trial, run: StoredRun, manifest: Manifest) -> TrialResult:
    """The same with the epochs of the objective: for a run whose end the journal has missed."""
    result, metric = result_of(trial, run), manifest.settings.sweep.metric
    if not run.delivered or metric not in run.metrics:
        return result
    points = bounded_store(manifest.tracking_uri).history(run, metric)
    return dataclasses.replace(result, history={metric: points})


class Reasons:
    """Why a trial is not finished: what differs from the earlier run most like it."""

    def __init__(self, manifest: Manifest, runs: Sequence[StoredRun]) -> None:
        self._manifest, self._runs = manifest, runs
        self._files: dict[str, list[str]] = {}

    def why(self, trial: Trial) -> str:
        flat = {k: as_param(v) for k, v in flatten(trial.values).items() if k not in WITHOUT_EFFECT}
        closest = min(
            self._runs,
            key=lambda run: (len(_differences(flat, run.params)), -run.start_time),
            default=None,
        )
        if closest is None:
            return "never run"
        differing = _differences(flat, closest.params)
        if not differing and (changed := self._changed_files(closest)):
            return f"source changed since run {closest.short_id}: {changed}"
        if not differing:
            return f"other data or device than run {closest.short_id}"
        if all(knob in trial.swept or f"{knob.partition('.')[0]}" in trial.swept for knob in differing):
            return "never run"
        told = [
            f"{k} is {flat.get(k, 'gone')}, was {closest.params.get(k, 'not there')}" for k in differing
        ]
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        return f"{'; '.join(told[:3])}{more} in run {closest.short_id}"

    def _changed_files(self, run: StoredRun) -> str:
        digest = run.tags.get("digitlab.source", "")
        if digest == source_digest():
            return ""
        if digest not in self._files:
            self._files[digest] = _changed(run, self._manifest.tracking_uri)
        changed = self._files[digest]
        return ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")


def estimate_seconds(configs: Iterable[Mapping[str, Any]], runs: Sequence[StoredRun]) -> float | None:
    """Training time of all of them, one after another; None: unknown.

    The median time of an epoch of the same model, data set and batch size, times the epochs.
    """
    samples: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        epochs = int(run.params.get("epochs", "0"))
        if run.end_time and epochs:
            seconds = (run.end_time - run.start_time) / 1000 / epochs / _num_side_by_side(run)
            samples.setdefault(_kind(run.params), []).append(seconds)
    total = 0.0
    for values in configs:
        params = {knob: as_param(value) for knob, value in flatten(values).items()}
        known = samples.get(_kind(params))
        if not known:
            return None
        total += statistics.median(known) * int(params["epochs"])
    return total


def _num_side_by_side(run: StoredRun) -> int:
    """Of the runs that took that time together."""
    found = re.fullmatch(r"fused, (\d+) side by side", run.tags.get(ENGINE_TAG, ""))
    return int(found[1]) if found else 1


def _kind(params: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(params.get(knob, "") for knob in ("model.name", "data.name", "batch_size"))


def _differences(wanted: Mapping[str, str], had: Mapping[str, str]) -> list[str]:
    known = {knob for knob in had if knob not in WITHOUT_EFFECT}
    return [k for k in [*wanted, *sorted(known - wanted.keys())] if wanted.get(k) != had.get(k)]


def _changed(run: StoredRun, uri: str) -> list[str]:
    """The source files that decide numbers and differ from those of a run."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            store: RunStore = bounded_store(uri)
            file = store.download(run, "record.json", Path(scratch))
            before = json.loads(file.read_text())["code"]["files"]
    except (TrackingError, OSError, ValueError, KeyError, TypeError):
        return ["which files is not known any more"]
    return differing_source(before, source_files())
