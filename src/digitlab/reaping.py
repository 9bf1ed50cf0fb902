"""Runs whose process is gone: mark them KILLED, so that no run stays RUNNING for ever."""

from collections.abc import Callable, Iterable
from pathlib import Path

from digitlab.provenance import Process
from digitlab.record import Record, all_records
from digitlab.tracking.runs import StoredRun
from digitlab.tracking.store import RunStore

REASON = "the process died without a word (killed, out of memory, or power lost)"


def close_dead_records(records: Iterable[Record], say: Callable[[str], None]) -> list[Record]:
    """End every RUNNING record whose process has died; returns those, not yet delivered."""
    dead = []
    for record in records:
        run = record.run
        if run.status == "RUNNING" and run.process.is_dead() and record.try_to_own():
            record.finish("KILLED", {"digitlab.error": REASON})
            record.release()
            what = f"run {run.name!r} had died (process {run.process.pid} is gone): marked KILLED"
            is_alone = run.parent is None and run.tags.get("digitlab.kind") != "sweep"
            say(what + f"; go on: digitlab resume {run.record_id}" * is_alone)
            dead.append(record)
    return dead


def close_dead_runs(store: RunStore, records: Path) -> list[StoredRun]:
    """The same for RUNNING runs in the store that this host's processes of other checkouts left."""
    local = {record.run.record_id for record in all_records(records)}
    dead = []
    for run in store.running():
        process = _process(run.tags)
        has_no_record_here = run.tags.get("digitlab.record") not in local
        if has_no_record_here and process is not None and process.is_dead():
            store.mark_killed(run, REASON)
            dead.append(run)
    return dead


def _process(tags: dict[str, str]) -> Process | None:
    try:
        return Process(
            host=tags["digitlab.process.host"],
            boot_id=tags["digitlab.process.boot_id"],
            pid=int(tags["digitlab.process.pid"]),
            started=tags["digitlab.process.started"],
        )
    except (KeyError, ValueError):
        return None
