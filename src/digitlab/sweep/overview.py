"""Sweeps and how far they are, for `digitlab sweeps`; what is damaged in their files."""

import contextlib
from pathlib import Path
from typing import Any

from digitlab.errors import DigitlabError
from digitlab.sweep.search import num_needed
from digitlab.sweep.sweep_folder import SweepFolder, all_sweeps
from digitlab.sweep.workers.executors.submitted_job import has_jobs
from digitlab.text.terminal import say, show_table, styled
from digitlab.tracking.stored_run import age

STYLES = {
    "finished": "green",
    "failed": "red",
    "running": "cyan",
    "detached": "cyan",  # its jobs go on without it, or have done so
    "stopped": "yellow",  # by --for, with trials left
    "cut short": "yellow",
}

CAN_GO_ON = ("stopped", "cut short")  # with nothing under way, and trials left


def describe_sweeps(sweeps: Path) -> list[dict[str, Any]]:
    """Plain values, newest first. created: ms since the epoch."""
    rows = []
    for folder in all_sweeps(sweeps):
        with contextlib.suppress(DigitlabError):
            rows.append(describe(folder))
    for problem in (problem for folder in all_sweeps(sweeps) for problem in damage(folder)):
        say(problem)
    return rows


def damage(folder: SweepFolder) -> list[str]:
    """What is wrong with its files, each with the remedy."""
    try:
        folder.manifest()
    except DigitlabError as error:
        return [str(error)]
    if not (lost := folder.journal.num_damaged()):
        return []
    return [
        f"{lost} damaged lines in the journal of sweep {folder.id} are left out: "
        f"digitlab resume {folder.id} sets them aside and does again what they said"
    ]


def describe(folder: SweepFolder) -> dict[str, Any]:
    """Raises DigitlabError if its manifest is damaged."""
    manifest = folder.manifest()
    results = [r for r in folder.results().values() if r.state != "INTERRUPTED"]
    reused = max((e.get("reused", 0) for e in folder.events() if e["event"] == "working"), default=0)
    failed = sum(result.state == "FAILED" for result in results)
    if folder.is_owned():
        status = "running"
    elif has_jobs(folder.folder):
        status = "detached"
    elif folder.has_ended():
        status = "failed" if failed else "finished"
    else:
        status = "stopped" if folder.is_stopped() else "cut short"
    total = num_needed(folder, manifest)
    done = len(results) - failed + reused
    return {
        "id": manifest.id,
        "name": manifest.name,
        "study": manifest.study,
        "status": status,
        "done": done,
        "failed": failed,
        "pending": max(total - done - failed, 0),
        "trials": total,
        "created": manifest.created,
        "command": manifest.command,
    }


def print_sweeps(rows: list[dict[str, Any]]) -> None:
    counts = ("done", "failed", "pending")
    cells = (
        (
            row["id"],
            styled(row["status"], STYLES[row["status"]]),
            age(row["created"]),
            row["name"],
            row["study"],
            *(str(row[count]) for count in counts),
        )
        for row in rows
    )
    titles = ("sweep", "status", "age", "name", "study", *counts)
    show_table(titles, cells, right=counts, pipe_width=200)
