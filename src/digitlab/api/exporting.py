"""A run as one file to hand on: all of its record, or its configuration alone."""

from pathlib import Path

from digitlab.errors import UsageError
from digitlab.reproduction.reading import export, export_config
from digitlab.tracking.names import BEST_RUN_TAG, VALIDATION_ACCURACY
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun

YAML = (".yaml", ".yml")


def write_run(reference: str, uri: str, file: Path, *, about: str = "") -> None:
    """An archive of the run, or its configuration if the file is called .yaml or .yml.

    about: what the run is, as a comment in the file.
    """
    if file.suffix in YAML:
        export_config(reference, uri, file, about=about)
    else:
        export(reference, uri, file)


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
