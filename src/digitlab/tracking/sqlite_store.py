"""A fresh SQLite store, created once and for all processes at the same time.

MLflow's own creation takes 6 s of migrations, and processes that start it together break one another
("duplicate column name"). Here one process at a time copies a template that `make setup` has made
(`python -m digitlab.tracking.sqlite_store`) or, without one, builds it first.
"""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from digitlab.errors import TrackingError


def ensure_store(file: Path) -> None:
    """Create the store unless it is there; safe from any number of processes at once."""
    if file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):
            if not file.exists():
                _copy(ensure_template(), file)
    except OSError as error:
        raise TrackingError(f"the tracking store {file} cannot be created: {error}") from None


def ensure_template() -> Path:
    """An empty, migrated database of the installed MLflow version, kept inside the environment."""
    version = importlib.metadata.version("mlflow")
    folder = Path(sys.prefix) / "share" / "digitlab"
    if not _writable(folder):
        folder = Path(tempfile.gettempdir()) / f"digitlab-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    template = folder / f"mlflow-{version}.db"
    with FileLock(template.with_suffix(".lock")):
        if not template.exists():
            with tempfile.TemporaryDirectory() as scratch:
                fresh = Path(scratch) / "mlflow.db"
                _migrate(fresh)
                _copy(fresh, template)
    return template


def _migrate(file: Path) -> None:
    from mlflow.client import MlflowClient

    # The Default experiment's artifact folder is written into it; digitlab never uses that experiment.
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments(max_results=1)


def _copy(source: Path, target: Path) -> None:
    """Copy beside the target, then rename: nobody ever sees half a database."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def _writable(folder: Path) -> bool:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return os.access(existing, os.W_OK)


if __name__ == "__main__":
    from digitlab.tracking.environment import quiet_mlflow

    quiet_mlflow()
    ensure_template()
