"""Removal done: runs into MLflow's trash, or purged with all that this disk has of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from digitlab.cli.store.removal import Removal
from digitlab.config import project
from digitlab.errors import TrackingError
from digitlab.sweep.sweep_folder import SweepFolder
from digitlab.text.terminal import echo, say, show_table
from digitlab.tracking.names import PARENT_SWEEP_TAG, SWEEP_TAG
from digitlab.tracking.removal.sizes import artifact_bytes, megabytes
from digitlab.tracking.removal.trash import Trash, orphans, remove_folders, shrink
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun

MOST_SHOWN = 10  # runs that stay, each with its reason


def settle(
    store: RunStore,
    removal: Removal,
    removed: Sequence[StoredRun],
    studies: Iterable[str] = (),
    *,
    yes: bool,
    purge: bool,
) -> None:
    """Show what goes and what stays, and with `yes` do it.

    removed: runs that were removed before, and are to be purged. studies: go, too, once they are empty.
    """
    _show_staying(removal)
    going = [*removal.going, *removed]
    lost = orphans(store.uri) if purge else []
    empty = [study for study in studies if not removal.kept]
    if not (going or lost or empty):
        echo("nothing to remove")
        return
    size = megabytes(sum(map(artifact_bytes, going)))
    if not yes:
        _show_going(going)
        how = "for good" if purge else "`digitlab restore` could bring them back"
        echo(f"{counted(going)}, {size}, would go ({how}); nothing is removed without --yes")
        return
    trash = Trash(store.uri)
    trash.put(removal.going)
    for study in empty:
        trash.put_study(study)
    if purge:
        _purge(trash, store.uri, going)
        echo(f"{counted(going)} purged, {size}")
    else:
        echo(
            f"{counted(going)} removed; `digitlab restore` brings them back, `digitlab gc --purge` "
            f"frees their {size}"
        )


def _purge(trash: Trash, uri: str, runs: list[StoredRun]) -> None:
    for address in trash.purge(runs):
        say(f"its artifacts stay, which do not lie where digitlab puts them: {address}")
    trash.purge_studies()
    remove_folders([*orphans(uri), *_folders_of_sweeps(runs)])
    _forget_records(project.records(), {run.run_id for run in runs})
    try:
        shrink(uri)
    except TrackingError as error:
        say(str(error))


def _folders_of_sweeps(runs: list[StoredRun]) -> list[Path]:
    """Of the sweeps whose own run is among these, and which nobody works on."""
    ids = {run.tags.get(PARENT_SWEEP_TAG) for run in runs}
    folders = [folder for folder in project.sweeps().glob("*/") if folder.name in ids]
    return [folder for folder in folders if not SweepFolder(folder).is_owned()]


def _forget_records(records: Path, run_ids: set[str]) -> None:
    """Delete what waits on this disk to continue these runs."""
    for record in all_records(records):
        if record.delivered.run_id in run_ids and record.try_to_own():
            record.delete()
            record.release()


def _show_going(runs: list[StoredRun]) -> None:
    parts: dict[tuple[str, str], list[int]] = {}
    for run in runs:
        parts.setdefault((run.study, part_of(run, "sweep")), []).append(artifact_bytes(run))
    cells = [(*name, str(len(sizes)), megabytes(sum(sizes))) for name, sizes in parts.items()]
    show_table(("study", "what", "runs", "size"), cells, right=("runs", "size"))


def _show_staying(removal: Removal) -> None:
    for run, reason in removal.kept[:MOST_SHOWN]:
        say(f"{run.short_id} {run.name} stays: {reason}")
    if (more := len(removal.kept) - MOST_SHOWN) > 0:
        say(f"{more} more stay")


def part_of(run: StoredRun, by: str) -> str:
    """What a run belongs to, in a table that has a line for each study, sweep or run."""
    if by == "study":
        return "runs"
    if by == "run":
        return f"{run.short_id} {run.name}"
    sweep = run.tags.get(PARENT_SWEEP_TAG) or run.tags.get(SWEEP_TAG, "")
    return f"sweep {sweep}" if sweep else "runs of no sweep"


def counted(runs: list[StoredRun]) -> str:
    return f"{len(runs)} runs" if len(runs) != 1 else f"run {runs[0].short_id} {runs[0].name}"
