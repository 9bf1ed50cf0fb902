"""Which runs may be removed, and what keeps the others. Removes nothing."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from digitlab.config import project
from digitlab.errors import UsageError
from digitlab.sweep.overview import CAN_GO_ON, describe_sweeps
from digitlab.tracking import names
from digitlab.tracking.registry import Registry
from digitlab.tracking.search.run_filter import ranked
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun

CUT_SHORT = ("FAILED", "KILLED")
IN_WORK = ("running", "detached")  # sweeps, as overview.py calls them
WAYS = {
    "running": "wait for",
    "detached": "digitlab resume",
    **dict.fromkeys(CAN_GO_ON, "finish it with digitlab resume, or give all of it up with digitlab rm"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Removal:
    """going: runs that nothing keeps, sweeps' own among them. kept: by run id, why one stays."""

    going: list[StoredRun]
    kept: list[tuple[StoredRun, str]]


def plan(store: RunStore, meant: Iterable[StoredRun], given_up: Collection[str] = ()) -> Removal:
    """Of runs that are to be removed, those that may be: nothing that stays needs them.

    given_up: ids of sweeps that are to be removed themselves; what was cut short of them is not needed.
    """
    needed = _needs(store, given_up)
    going, kept = dict[str, StoredRun](), list[tuple[StoredRun, str]]()
    for run in meant:
        if reason := needed(run):
            kept.append((run, reason))
        else:
            going[run.run_id] = run
    repeated = _reproductions(store)
    while staying := [*_needed_by_others(going, repeated)]:
        for run, reason in staying:  # which may be needed by another in turn
            del going[run.run_id]
            kept.append((run, reason))
    return Removal(list(going.values()), kept)


def with_sweeps(store: RunStore, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs, and the own runs of the sweeps of which no other trial is left."""
    going = {run.run_id for run in runs}
    emptied = []
    for study in dict.fromkeys(run.study for run in runs):
        there = store.all_runs(study)
        left = {sweep for run in there if run.run_id not in going for sweep in _sweeps_of(run)}
        touched = {sweep for run in there if run.run_id in going for sweep in _sweeps_of(run)}
        own = [run for run in there if run.is_parent and run.run_id not in going]
        emptied += [run for run in own if run.tags[names.PARENT_SWEEP_TAG] in touched - left]
    return [*runs, *emptied]


def old_runs(
    store: RunStore, *, study: str | None, before: int | None, is_failed: bool, keep_best: int
) -> list[StoredRun]:
    """What a user who names no run wants to be rid of, oldest first.

    before: only those that had ended by then, in ms. is_failed: only FAILED and KILLED ones; a pruned
    trial is neither. keep_best: so many of each study stay, by their validation accuracy: the test
    split chooses nothing.
    """
    chosen = []
    for name in [study] if study else store.studies():
        runs = [run for run in store.all_runs(name) if not run.is_parent]
        best = {run.run_id for run in ranked(_validated(runs), names.CHOSEN_ACCURACY)[:keep_best]}
        chosen += [
            run
            for run in runs
            if run.run_id not in best
            and run.end_time is not None
            and (before is None or run.end_time < before)
            and (not is_failed or run.state in CUT_SHORT)
        ]
    return chosen


def removed_runs(store: RunStore, word: str, *, may_be_none: bool = False) -> list[StoredRun]:
    """The removed runs that a word means: a study's, a sweep's with its own, or the start of an id.

    Raises:
        UsageError: none, or the word is the start of several ids.
    """
    removed = store.removed_runs()
    of_study = [run for run in removed if run.study == word]
    of_sweep = [
        run for run in removed if word in _sweeps_of(run) or (run.is_parent and run.name == word)
    ]
    starting = [run for run in removed if run.run_id.startswith(word)]
    if len(starting) > 1:
        raise UsageError(f"{word} is the start of {len(starting)} removed runs: give more of it")
    if starting and (own := starting[0].tags.get(names.PARENT_SWEEP_TAG)):
        return removed_runs(store, own)
    matches = of_study or of_sweep or starting
    if not matches and not may_be_none:
        raise UsageError(f"{word!r} is no run, sweep or study that was removed from {store.uri}")
    return matches


def _validated(runs: Sequence[StoredRun]) -> list[StoredRun]:
    return [run for run in runs if names.CHOSEN_ACCURACY in run.metrics]


def _needs(store: RunStore, given_up: Collection[str]) -> Callable[[StoredRun], str]:
    """A function that says what needs a run by itself; empty where nothing does."""
    models = Registry(store.uri).models_of_runs()
    unfinished = {
        row["id"]: row
        for row in describe_sweeps(project.sweeps())
        if row["status"] in IN_WORK or (row["status"] in CAN_GO_ON and row["id"] not in given_up)
    }

    def needed(run: StoredRun) -> str:
        if run.status == "RUNNING":
            return "it is running"
        if model := models.get(run.run_id):
            return f"the model {model} came of it"
        for sweep in _sweeps_of(run):
            if row := unfinished.get(sweep):
                return f"its sweep {row['name']} is {row['status']}: {WAYS[row['status']]} {sweep}"
        return ""

    return needed


def _needed_by_others(
    going: dict[str, StoredRun], repeated: dict[str, list[StoredRun]]
) -> Iterator[tuple[StoredRun, str]]:
    for run in [*going.values()]:
        others = [other for other in repeated.get(run.run_id, []) if other.run_id not in going]
        if others:
            yield run, f"run {others[0].short_id}, which stays, reproduces it"


def _reproductions(store: RunStore) -> dict[str, list[StoredRun]]:
    """By run id, the runs that repeat it."""
    repeated: dict[str, list[StoredRun]] = {}
    for study in store.studies():
        for run in store.all_runs(study, f"tags.`{names.REPRODUCES_TAG}` != ''"):
            repeated.setdefault(run.tags[names.REPRODUCES_TAG], []).append(run)
    return repeated


def _sweeps_of(run: StoredRun) -> list[str]:
    """The ids of the sweeps that it belongs to, or of the one whose own run it is."""
    own = run.tags.get(names.PARENT_SWEEP_TAG)
    return [own] if own else run.tags.get(names.SWEEP_TAG, "").split()
