"""Where a run's artifacts are now: beside their store, wherever it was when it wrote their address.

MLflow keeps the whole address of every study and run. A store that was moved, copied or mounted at
another place with its artifacts would look for them at the old place, and make that place again.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from digitlab.text.addresses import with_secrets
from digitlab.tracking.connection.location import artifact_location, file_path, sqlite_file

RUN_FOLDER = re.compile(r"[0-9a-f]{32}")
ROOTS = ("artifacts", "mlruns")  # ours, and MLflow's own for a store that was given none
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
LOCK_SECONDS = 20.0


def present_address(uri: str, recorded: str) -> str:
    """Where the artifacts of a study, a run or a model of the store `uri` are, or will be written.

    recorded: what the store says: `ROOT/STUDY`, `ROOT/STUDY/RUN/artifacts` or something below that.
    An address that a user chose, and one that is not a file's, stay as they are.
    """
    here, path = artifact_location(uri), file_path(recorded)
    if here is None or path is None:
        return recorded
    parts = path.parts
    length = _length_of_root(parts)
    root, below = Path(*parts[:length]), parts[length:]
    if root.name not in ROOTS or root == here:
        return recorded
    owner = below[:3]  # STUDY, or STUDY/RUN/artifacts
    if here.joinpath(*owner).exists():
        return here.joinpath(*below).as_uri()
    store = sqlite_file(uri)
    around = (root.parent, root)  # ours is beside its store, MLflow's own may be around it
    is_of_a_store = store is not None and any((place / store.name).exists() for place in around)
    is_chosen = root.exists() and not is_of_a_store
    if is_chosen or root.joinpath(*owner).exists():
        return recorded
    return here.joinpath(*below).as_uri()


def repository(uri: str, recorded: str) -> Any:
    """MLflow's access to the artifacts at their present address."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(present_address(uri, recorded), tracking_uri=with_secrets(uri))


def outdated_addresses(file: Path) -> dict[str, str]:
    """The addresses in a SQLite store that are of another place, each with the present one."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS)) as store:
        addresses = {
            str(address)
            for table, column in COLUMNS
            for (address,) in store.execute(f"SELECT DISTINCT {column} FROM {table}")
            if address
        }
    present = {address: present_address(f"sqlite:///{file}", address) for address in sorted(addresses)}
    return {before: now for before, now in present.items() if before != now}


def update_addresses(file: Path) -> dict[str, str]:
    """Write the present addresses into a store, for MLflow's own programs; returns what was changed."""
    outdated = outdated_addresses(file)
    if outdated:
        changes = [(now, before) for before, now in outdated.items()]
        with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as store, store:
            for table, column in COLUMNS:
                store.executemany(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", changes)
    return outdated


def _length_of_root(parts: tuple[str, ...]) -> int:
    """How many parts stand before the study's folder."""
    for index in range(len(parts) - 1, 2, -1):
        if parts[index] == "artifacts" and RUN_FOLDER.fullmatch(parts[index - 1]):
            return index - 2
    return len(parts) - 1
