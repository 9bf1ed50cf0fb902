"""`digitlab promote`: a run's model into the registry, in a format that MLflow serves."""

import shutil
import tempfile
from pathlib import Path

from digitlab.inference.trained_model import PAYLOAD, download_model, find_run
from digitlab.models.saved import CONFIG_FILE, WEIGHTS_FILE
from digitlab.runs import provenance
from digitlab.tracking.model_format import save_mlflow_model
from digitlab.tracking.names import MODEL_FOLDER
from digitlab.tracking.registry import Registry, check_name
from digitlab.tracking.store import RunStore

NEEDED = ("MLmodel", f"{PAYLOAD}/{CONFIG_FILE}", f"{PAYLOAD}/{WEIGHTS_FILE}")
WHOLE = {f"{MODEL_FOLDER}/{name}" for name in NEEDED}


def promote(
    store: RunStore, reference: str, name: str, alias: str | None
) -> tuple[str, str, str | None]:
    """Register the run's model (of a sweep: its best trial's); returns the run's id, the version,
    and the version that had the alias before.

    A run that was not recorded with `record.mlflow_model=true` gets its model in MLflow's format now.

    Raises:
        UsageError: no such run, no weights, or a name that cannot be.
    """
    check_name(name, alias)
    run = find_run(store, reference)
    there = {path for path, _ in store.artifacts(run)}
    if not there >= WHOLE:  # an upload that was cut short is made again
        with tempfile.TemporaryDirectory() as scratch:
            files = Path(scratch) / "files"
            files.mkdir()
            download_model(store, run, files)
            save_mlflow_model(files, provenance.versions())
            added = Path(scratch) / "added"
            added.mkdir()
            shutil.move(files / MODEL_FOLDER, added / MODEL_FOLDER)
            store.add_artifacts(run, added)
    return (run.run_id, *Registry(store.uri).register(run, name, alias))
