"""What came of a trial whose worker could not say it: it died, or the task raised.

Knows the run folder that the worker has left, and no executor but by what its futures raise.
"""

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from digitlab.results.trial_result import TrialResult
from digitlab.sweep.finished import result_of
from digitlab.sweep.manifest import Trial
from digitlab.sweep.workers.executors.executor import TaskFailed, WorkerDied
from digitlab.tracking.delivery import Delivery
from digitlab.tracking.leftovers import REASON
from digitlab.tracking.names import ERROR_TAG
from digitlab.tracking.run_folder import DamagedRecord, RunFolder
from digitlab.tracking.stored_run import undelivered


def outcome(
    future: Future[Any], trial: Trial, record: Path, say: Callable[[str], None]
) -> tuple[TrialResult, bool]:
    """Of a trial by itself, and whether its worker has died. record: the folder of its run."""
    try:
        return future.result(), False
    except WorkerDied as error:
        result = after_death(trial, record, str(error), say)
        has_died = result.state != "FINISHED"
        return dataclasses.replace(result, state="FAILED") if has_died else result, has_died
    except TaskFailed as error:
        return trial.result("FAILED", error=last_line(error), traceback=str(error)), False


def after_death(trial: Trial, record: Path, cause: str, say: Callable[[str], None]) -> TrialResult:
    """End the run that a dead worker has left, in the store too: it may have been finished."""
    cut_short = trial.result("INTERRUPTED", error=cause)
    try:
        folder = RunFolder.load(record)
    except DamagedRecord:  # or none
        return cut_short
    left = undelivered(folder)
    run_id = _end_and_deliver(folder, say)
    if left.status == "FINISHED":
        return dataclasses.replace(result_of(trial, left), run_id=run_id, reused=False)
    return dataclasses.replace(cut_short, run_id=run_id)


def _end_and_deliver(folder: RunFolder, say: Callable[[str], None]) -> str | None:
    """Of a run whose process is gone, on whatever machine it was; returns its id in the store."""
    if folder.try_to_own():
        folder.finish("KILLED", {ERROR_TAG: REASON})  # unless it has ended
        Delivery(folder, say).finish()
        folder.release()
    return folder.delivered.run_id


def last_line(error: Exception) -> str:
    """Of a traceback: what was raised."""
    return str(error).strip().splitlines()[-1]
