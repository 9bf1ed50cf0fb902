"""A fresh SQLite store, created once and for all processes at the same time.

MLflow's own creation takes 6 s of migrations, and processes that start it together break one another
("duplicate column name"). Here one process at a time copies a template that `make setup` has made
(`python -m digitlab.tracking.connection.sqlite_store`) or, without one, builds it first.
"""

import importlib.metadata
import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import platformdirs
from filelock import FileLock

from digitlab.errors import TrackingError
from digitlab.tracking.connection.environment import quiet_mlflow
from digitlab.tracking.connection.location import artifact_location, is_made
from digitlab.tracking.connection.plainly import deleted_study, plain_errors


def ensure_store(file: Path) -> None:
    """Create the store unless it is there; safe from any number of processes at once."""
    try:
        if not is_made(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f".{file.name}.lock")):
                if not is_made(file):
                    _replace(file, _fill)
    except OSError as error:
        raise TrackingError(f"the tracking store {file} cannot be created: {error}") from None


def check_study(file: Path, study: str) -> None:
    """Raises DeletedError if the study was deleted. Does not import mlflow.

    Of a store that another process has locked nothing is known, and nothing is refused.
    """
    with plain_errors(f"sqlite:///{file}"), closing(sqlite3.connect(file, timeout=1.0)) as store:
        named = "SELECT 1 FROM experiments WHERE name = ? AND lifecycle_stage = 'deleted'"
        try:
            is_deleted = store.execute(named, (study,)).fetchone() is not None
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return
        if is_deleted:
            raise deleted_study(study, f"sqlite:///{file}")


def ensure_template() -> Path | None:
    """An empty, migrated database of the installed MLflow version, inside the environment or the cache.

    None if others can write in both: whoever makes the template decides where artifacts go.
    """
    name = f"mlflow-{importlib.metadata.version('mlflow')}.db"
    folders = (Path(sys.prefix) / "share" / "digitlab", Path(platformdirs.user_cache_dir("digitlab")))
    for folder in folders:
        with suppress(OSError):
            if not (folder / name).is_file():
                folder.mkdir(parents=True, exist_ok=True)
            if _is_private(folder):
                return _build(folder / name)
    return None


def _is_private(folder: Path) -> bool:
    """Whether only this user and root can put files there."""
    about = folder.lstat()
    is_ours = about.st_uid in (os.getuid(), 0)
    return stat.S_ISDIR(about.st_mode) and is_ours and not about.st_mode & 0o022


def _build(template: Path) -> Path:
    if not template.exists():
        with FileLock(template.with_suffix(".lock")):
            if not template.exists():
                _replace(template, _migrate)
    return template


def _fill(fresh: Path) -> None:
    """Studies' artifacts beside the store, those of MLflow's study Default, too."""
    if template := ensure_template():
        shutil.copyfile(template, fresh)
    else:
        _migrate(fresh)
    artifacts = artifact_location(f"sqlite:///{fresh}")
    assert artifacts is not None, "it is a file"
    with closing(sqlite3.connect(fresh)) as store, store:
        store.execute(
            "UPDATE experiments SET artifact_location = ?", ((artifacts / "Default").as_uri(),)
        )


def _migrate(fresh: Path) -> None:
    quiet_mlflow()
    from mlflow.client import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{fresh}").search_experiments(max_results=1)


def _replace(file: Path, make: Callable[[Path], None]) -> None:
    """Made beside it, then renamed: nobody ever sees half a database."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        make(temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    ensure_template()
