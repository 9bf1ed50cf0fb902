"""A run as one file to hand on: all of its record, or its configuration alone."""

from pathlib import Path

from digitlab.config import project
from digitlab.errors import UsageError
from digitlab.reproduction.reading import archive_of, export, export_config
from digitlab.tracking.delivery import open_answering
from digitlab.tracking.names import (
    BEST_RUN_TAG,
    COMMAND_TAG,
    PARENT_SWEEP_TAG,
    VALIDATION_ACCURACY,
)
from digitlab.tracking.run_folder import RunFolder
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import Chosen, StoredRun

YAML = (".yaml", ".yml")


def write_run(reference: str, uri: str, file: Path, *, about: str = "") -> int:
    """An archive of the run, or its configuration if the file is called .yaml or .yml.

    Of a sweep or a study all its finished runs. about: what the run is, as a comment in the file.

    Returns:
        How many runs were written.
    """
    several = _several(reference, uri)
    if several is None and file.suffix in YAML:
        export_config(reference, uri, file, about=about)
    elif several is None:
        export(reference, uri, file)
    elif file.suffix in YAML:
        raise UsageError(f"{file} takes one configuration, and {reference} has several: add --best")
    else:
        return _write_several(several, uri, file)
    return 1


def _several(reference: str, uri: str) -> Chosen | None:
    """The sweep or the study that is meant; None for a run."""
    from digitlab.sweep.lookup import choose

    if RunFolder.named(project.records(), reference):
        return None
    chosen = choose(open_answering(uri), reference)
    return None if chosen.kind == "run" else chosen


def _write_several(chosen: Chosen, uri: str, file: Path) -> int:
    from digitlab.reproduction.moving.bundle import Sweep, write_bundle

    finished = [run for run in chosen.runs if run.status == "FINISHED"]
    if not finished:
        raise UsageError(f"no run of {chosen.kind} {chosen.name} has finished: nothing to export")
    sweep = None
    if own := chosen.own_run:
        sweep = Sweep(
            format=1,
            id=own.tags[PARENT_SWEEP_TAG],
            name=own.name,
            study=own.study,
            command=own.tags.get(COMMAND_TAG, ""),
        )
    return write_bundle(file, ((run, archive_of(run.run_id, uri)) for run in finished), sweep)


def best_run(store: RunStore, reference: str) -> tuple[StoredRun, str]:
    """The best run by validation of a sweep or a study, and what it is the best of.

    Of a study that is the first run of the first row of `digitlab compare STUDY`: means over seeds
    decide.

    Raises:
        UsageError: it is a single run, or none has FINISHED with a validation score.
    """
    from digitlab.results.compare.compare import ranked_rows
    from digitlab.sweep.lookup import choose

    chosen = choose(store, reference)
    if chosen.kind == "run":
        raise UsageError(f"--best takes a sweep or a study, and {reference} is a run: leave --best out")
    if chosen.own_run and (run_id := chosen.own_run.tags.get(BEST_RUN_TAG)):
        return store.find(run_id), f"the best of sweep {chosen.name}"
    rows, metric, _ = ranked_rows(store, [chosen])
    if metric != VALIDATION_ACCURACY:
        raise UsageError(
            f"no run of {chosen.kind} {chosen.name} has a validation score, and the test decides "
            f"nothing: name a run (`digitlab compare {reference}` shows them)"
        )
    return rows[0].runs[0], f"the best of {chosen.kind} {chosen.name} by {metric}"
