"""Which trials need not run: by the store, by runs that wait on this disk, by the sweep's journal."""

import dataclasses
from collections.abc import Iterable, Sequence

from digitlab.config import project
from digitlab.errors import TrackingError
from digitlab.results.trial_result import TrialResult
from digitlab.sweep.manifest import Manifest, Trial
from digitlab.sweep.sweep_folder import SweepFolder
from digitlab.tracking.connection.location import is_made, sqlite_file, unreachable
from digitlab.tracking.delivery import bounded_store
from digitlab.tracking.names import FINGERPRINT_TAG, SWEEP_TAG
from digitlab.tracking.run_folder import waiting_records
from digitlab.tracking.stored_run import StoredRun, undelivered

OTHERS_UNKNOWN = "what other sweeps have finished is not known"


@dataclasses.dataclass(frozen=True, slots=True)
class FinishedRuns:
    """A study's FINISHED runs. unanswered: why the store's are not among them, or empty."""

    runs: Sequence[StoredRun] = ()
    unanswered: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What of a grid needs not run, and what does.

    runs: of finished trials, by number. journal: results that stand without a run, by number.
    notes: what a user may not expect, a line each.
    """

    runs: dict[int, StoredRun]
    journal: dict[int, TrialResult]
    pending: list[Trial]
    notes: list[str]


def finished_runs(study: str, uri: str) -> FinishedRuns:
    """In the store, if it answers, and still on this disk."""
    waiting = [
        undelivered(record)
        for record in waiting_records(project.records())
        if record.run.status == "FINISHED" and record.run.study == study
    ]
    waiting = [run for run in waiting if FINGERPRINT_TAG in run.tags]
    file = sqlite_file(uri)
    if file and not is_made(file):  # no run has ever been recorded there
        return FinishedRuns(waiting)
    if reason := unreachable(uri):
        return FinishedRuns(waiting, reason)
    try:
        store = bounded_store(uri)  # whose limit of time holds for each page
        runs, page = store.finished(study)
        while page:
            more, page = store.finished(study, page)
            runs += more
        return FinishedRuns([*runs, *waiting])
    except TrackingError as error:
        return FinishedRuns(waiting, str(error))


def remaining(manifest: Manifest, finished: FinishedRuns, folder: SweepFolder | None) -> Remaining:
    """What is left of a grid; folder: of the same sweep, if it was begun before.

    A trial is finished if a run has its fingerprint. Where the store does not answer, a trial that the
    sweep's own journal calls FINISHED is finished, too.
    """
    runs = _runs_of_trials(manifest, finished.runs)
    swept = {trial.number: trial.swept for trial in manifest.trials}
    earlier = folder.results() if folder else {}  # of other trials, if the manifest was frozen anew
    earlier = {n: result for n, result in earlier.items() if result.swept == swept.get(n)}
    stand = {n for n, result in earlier.items() if result.state == "FAILED" and result.is_final}
    by_journal = {n for n, result in earlier.items() if result.state == "FINISHED" and n not in runs}
    notes = []
    if finished.unanswered:
        stand |= by_journal
        counted = f"{len(by_journal)} trials are taken as finished by the journal of this sweep"
        notes.append(f"{finished.unanswered}: {counted if by_journal else OTHERS_UNKNOWN}")
    elif by_journal:
        notes.append(
            f"{len(by_journal)} trials that finished before are in the store no more: they run again"
        )
    return Remaining(
        runs=runs,
        journal={number: earlier[number] for number in stand if number not in runs},
        pending=[t for t in manifest.trials if t.number not in runs and t.number not in stand],
        notes=notes,
    )


def _runs_of_trials(manifest: Manifest, runs: Iterable[StoredRun]) -> dict[int, StoredRun]:
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
    run_id = run.run_id if run.delivered else None
    return trial.result(
        "FINISHED", run_id=run_id, metrics=run.metrics, seconds=run.seconds, reused=True
    )


def with_history(trial: Trial, run: StoredRun, manifest: Manifest) -> TrialResult:
    """The same with the epochs of the objective: for a run whose end the journal has missed."""
    result, metric = result_of(trial, run), manifest.settings.sweep.metric
    if not run.delivered or metric not in run.metrics:
        return result
    points = bounded_store(manifest.tracking_uri).history(run, metric)
    return dataclasses.replace(result, history={metric: points})
