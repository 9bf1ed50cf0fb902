"""How much of the disk runs, checkpoints, records and the store itself take, in bytes."""

from collections.abc import Iterable
from pathlib import Path

from digitlab.tracking.connection.location import sqlite_file
from digitlab.tracking.removal.trash import orphans, run_folder_of
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.stored_run import StoredRun


def bytes_of(folder: Path) -> int:
    """Of all files below; one that vanishes meanwhile, or is no file, counts nothing."""
    return sum(_size(file) for file in folder.rglob("*"))


def artifact_bytes(run: StoredRun) -> int:
    """Of a run whose artifacts are on this disk; else 0."""
    folder = run_folder_of(run)
    return bytes_of(folder) if folder else 0


def megabytes(size: int) -> str:
    """`31.2 MB`."""
    return f"{size / 1e6:.1f} MB"


def other_bytes(uri: str, records: Path, sweeps: Path) -> dict[str, int]:
    """What takes room besides the runs of the store, each with its name."""
    cut_short, waiting = "runs cut short, with checkpoints", "runs that wait for their store"
    parts = {cut_short: 0, waiting: 0}
    for record in all_records(records):
        parts[cut_short if record.delivered.is_closed else waiting] += bytes_of(record.folder)
    parts["sweeps: manifests, journals"] = bytes_of(sweeps)
    parts["artifacts of no run"] = sum(map(bytes_of, orphans(uri)))
    if file := sqlite_file(uri):
        parts["database"] = sum(_size(part) for part in _database_files(file))
    return parts


def _database_files(file: Path) -> Iterable[Path]:
    return file.parent.glob(f"{file.name}*")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0
