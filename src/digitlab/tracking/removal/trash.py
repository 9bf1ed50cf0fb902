"""Runs removed from a store: MLflow keeps them, marked as deleted, until they are purged for good."""

import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from digitlab.errors import TrackingError, UsageError
from digitlab.tracking.connection.client import open_client
from digitlab.tracking.connection.location import artifact_location, file_path, sqlite_file
from digitlab.tracking.connection.plainly import plain_errors
from digitlab.tracking.connection.relocation import RUN_FOLDER, repository
from digitlab.tracking.stored_run import StoredRun

LOCK_SECONDS = 20.0


class Trash:
    """Of one tracking URI. Opening it imports mlflow (3 s).

    Every method takes runs one by one: a process that is killed leaves each of them whole or removed,
    and the same call goes on. Raises TrackingError when the store does not do what it is asked.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = open_client(uri)

    def put(self, runs: Iterable[StoredRun]) -> None:
        """Remove runs; `restore` brings them back."""
        with plain_errors(self._uri):
            for run in runs:
                self._client.delete_run(run.run_id)

    def put_study(self, study: str) -> None:
        """Remove a study of which no run is left."""
        with plain_errors(self._uri):
            experiment = self._client.get_experiment_by_name(study)
            self._client.delete_experiment(experiment.experiment_id)

    def restore(self, runs: Iterable[StoredRun]) -> None:
        with plain_errors(self._uri):
            for run in runs:
                self._client.restore_run(run.run_id)

    def restore_study(self, study: str) -> bool:
        """Bring back a removed study with all its runs; whether there was one."""
        with plain_errors(self._uri):
            experiment = self._client.get_experiment_by_name(study)
            if experiment is None or experiment.lifecycle_stage != "deleted":
                return False
            self._client.restore_experiment(experiment.experiment_id)
        return True

    def purge(self, runs: Iterable[StoredRun]) -> list[str]:
        """Remove runs that were put here, for good; returns the addresses of artifacts that stay.

        Each leaves the store first: what a kill leaves are artifacts of no run (see `orphans`), never a
        run without artifacts. A folder that does not bear the run's id stays: a store that others write
        to is not trusted to name one.

        Raises:
            UsageError: the store is behind a server.
        """
        hard_delete = self._hard_delete("run")
        left = []
        for run in runs:
            with plain_errors(self._uri):
                hard_delete(run.run_id)
                if not _remove_artifacts(self._uri, run):
                    left.append(run.artifact_uri)
        return left

    def purge_studies(self) -> None:
        """Remove for good the removed studies of which no run is left."""
        from mlflow.entities import ViewType

        hard_delete = self._hard_delete("experiment")
        with plain_errors(self._uri):
            for experiment in self._client.search_experiments(ViewType.DELETED_ONLY):
                ids = [experiment.experiment_id]
                if not self._client.search_runs(ids, "", ViewType.ALL, max_results=1):
                    hard_delete(experiment.experiment_id)

    def _hard_delete(self, kind: str) -> Any:
        """What `mlflow gc` calls, which itself would purge every removed study, too."""
        store = self._client._tracking_client.store
        try:
            return getattr(store, f"_hard_delete_{kind}")
        except AttributeError:
            raise UsageError(
                f"{self._uri} purges nothing for others: where that server runs, `mlflow gc "
                "--backend-store-uri ITS_DATABASE` does, or digitlab with that address"
            ) from None


def run_folder_of(run: StoredRun) -> Path | None:
    """The folder of this disk that holds a run's artifacts and nothing else; None if there is none."""
    path = file_path(run.artifact_uri)
    is_its_own = path is not None and path.name == "artifacts" and path.parent.name == run.run_id
    return path.parent if path and is_its_own else None


def orphans(uri: str) -> list[Path]:
    """Artifacts of runs that a SQLite store does not know: what a killed purge has left."""
    file, folder = sqlite_file(uri), artifact_location(uri)
    if file is None or folder is None:
        return []
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS)) as store:
        known = {run_id for (run_id,) in store.execute("SELECT run_uuid FROM runs")}
    folders = (place for place in folder.glob("*/*/") if RUN_FOLDER.fullmatch(place.name))
    return sorted(place for place in folders if place.name not in known)


def remove_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def shrink(uri: str) -> None:
    """Let a SQLite store give the room of what was removed back to the disk; else do nothing."""
    if file := sqlite_file(uri):
        try:
            with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as store:
                store.execute("VACUUM")
        except sqlite3.OperationalError as error:
            raise TrackingError(f"{file} keeps its size for now: {error}") from None


def _remove_artifacts(uri: str, run: StoredRun) -> bool:
    """Whether nothing of them stays."""
    if folder := run_folder_of(run):
        shutil.rmtree(folder, ignore_errors=True)
        return True
    if file_path(run.artifact_uri):
        return False
    repository(uri, run.artifact_uri).delete_artifacts()
    return True
