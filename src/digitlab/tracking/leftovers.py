"""What crashes leave: runs whose process is gone, which become KILLED here, and unused files.

Unused are run folders that hold no run, and files that were being written.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from digitlab.tracking.names import ERROR_TAG, PROCESS_TAG, RECORD_TAG
from digitlab.tracking.process import Process
from digitlab.tracking.run_folder import RunFolder, all_records
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun

REASON = "the process died without a word (killed, out of memory, or power lost)"

IMPORTING = "importing-"  # the folder of a process that imports runs: with its number
IN_USE_SECONDS = 60  # what is younger may be in the making


def close_dead_records(records: Iterable[RunFolder], say: Callable[[str], None]) -> list[RunFolder]:
    """End every RUNNING record whose process has died; returns those, not yet delivered."""
    dead = []
    for record in records:
        run = record.run
        if run.status == "RUNNING" and run.process.is_dead() and record.try_to_own():
            record.finish("KILLED", {ERROR_TAG: REASON})
            record.release()
            what = f"run {run.name!r} had died (process {run.process.pid} is gone): marked KILLED"
            is_alone = run.parent is None and not run.is_parent
            say(what + f"; go on: digitlab resume {run.record_id}" * is_alone)
            dead.append(record)
    return dead


def close_dead_runs(store: RunStore, records: Path) -> list[StoredRun]:
    """The same in the store, for runs of this host whose record is not in this checkout."""
    local = {record.run.record_id for record in all_records(records)}
    dead = []
    for run in store.running():
        process = _process(run.tags)
        has_no_record_here = run.tags.get(RECORD_TAG) not in local
        if has_no_record_here and process is not None and process.is_dead():
            store.mark_killed(run, REASON)
            dead.append(run)
    return dead


def _process(tags: dict[str, str]) -> Process | None:
    try:
        return Process(
            host=tags[f"{PROCESS_TAG}host"],
            boot_id=tags[f"{PROCESS_TAG}boot_id"],
            pid=int(tags[f"{PROCESS_TAG}pid"]),
            started=tags[f"{PROCESS_TAG}started"],
        )
    except (KeyError, ValueError):
        return None


def find_remains(mlruns: Path) -> list[Path]:
    folders = [folder for folder in mlruns.glob("records/*/") if not any(folder.glob("run.json*"))]
    folders += mlruns.glob(f"{IMPORTING}*/")
    patterns = ("", "records/*/", "records/*/artifacts/", "sweeps/*/")
    files = [file for pattern in patterns for file in mlruns.glob(f"{pattern}.*.tmp")]
    files = [file for file in files if not any(folder in file.parents for folder in folders)]
    return [path for path in [*folders, *files] if _age_seconds(path) > IN_USE_SECONDS]


def remove_remains(remains: Sequence[Path]) -> None:
    for path in remains:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _age_seconds(path: Path) -> float:
    return time.time() - path.stat().st_mtime
