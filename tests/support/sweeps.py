"""What a sweep has left in the store of the project."""

from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun


def tree(study: str) -> tuple[list[StoredRun], list[StoredRun]]:
    """The sweeps' own runs of a study, and their trials by name."""
    runs = RunStore(resolve_uri(None)).all_runs(study)
    own = [run for run in runs if run.tags.get("digitlab.kind") == "sweep"]
    trials = [run for run in runs if "trial" in run.tags]
    assert len(own) + len(trials) == len(runs)
    return own, sorted(trials, key=lambda run: int(run.tags["trial"]))


def bits(study: str) -> dict[str, str]:
    return {run.name: run.tags["digitlab.weights"] for run in tree(study)[1]}
