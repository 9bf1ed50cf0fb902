"""Which runs are meant by RUN, SWEEP and STUDY. Knows nothing of what is compared."""

import difflib
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from digitlab.config import project
from digitlab.errors import UsageError
from digitlab.sweep.finished import belongs
from digitlab.sweep.sweep_folder import find_sweep
from digitlab.tracking.names import KIND_TAG, PARENT_SWEEP_TAG, SWEEP_TAG
from digitlab.tracking.registry import Registry, is_registered_name
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import AmbiguousRun, Chosen, StoredRun


def choose(store: RunStore, wanted: str) -> Chosen:
    """A study by its name, a sweep by its id or name, or a run; ids may be shortened.

    A run may also be asked for as the registered model that came of it: `NAME@alias`, `NAME/VERSION`.

    Raises:
        UsageError: it is none of them, or more than one.
    """
    if store.experiment_id(wanted) is not None:
        runs = tuple(run for run in store.all_runs(wanted) if KIND_TAG not in run.tags)
        return Chosen(kind="study", name=wanted, runs=runs, asked=wanted)
    found = [chosen for chosen in (_sweep(store, wanted), _run(store, wanted)) if chosen]
    if not found and is_registered_name(wanted):
        run = store.find(Registry(store.uri).run_id(wanted))
        return Chosen(kind="run", name=run.name, runs=(run,), asked=wanted)
    if not found:
        raise UsageError(
            f"{wanted!r} is no run, sweep or study in this store{_nearest(store, wanted)}: "
            "`digitlab runs` lists runs, `digitlab sweeps` sweeps"
        )
    if len(found) > 1:
        raise UsageError(
            f"{wanted} is the start of a run's id ({found[1].runs[0].short_id}, {found[1].name!r}) and "
            f"of the sweep {found[0].name!r}: give more of it"
        )
    return replace(found[0], asked=wanted)


def shown_run(store: RunStore, wanted: str) -> StoredRun:
    """The run, or a sweep's own run by the sweep's id or name.

    Raises:
        UsageError: it is neither, or a study.
    """
    chosen = choose(store, wanted)
    if chosen.kind == "study":
        raise UsageError(
            f"{wanted} is a study: `digitlab runs --study {shlex.quote(wanted)}` lists its runs"
        )
    return chosen.own_run or chosen.runs[0]


def _nearest(store: RunStore, wanted: str) -> str:
    found = difflib.get_close_matches(wanted, store.studies(), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _sweep(store: RunStore, wanted: str) -> Chosen | None:
    sweep_id = wanted
    with suppress(UsageError):
        sweep_id = find_sweep(project.sweeps(), wanted).id
    if not re.fullmatch(r"[\w-]+", sweep_id):
        return None
    own_run = store.with_tag(PARENT_SWEEP_TAG, sweep_id)
    if own_run is None:
        return None
    trials = store.all_runs(own_run.study, f"tags.`{SWEEP_TAG}` LIKE '%{sweep_id}%'")
    runs = tuple(run for run in trials if belongs(run, sweep_id))
    return Chosen(kind="sweep", name=own_run.name, runs=runs, own_run=own_run)


def _run(store: RunStore, wanted: str) -> Chosen | None:
    """None if there is none; raises UsageError if there are several, or if a sweep's own was named."""
    try:
        run = store.find(wanted)
    except AmbiguousRun:
        raise
    except UsageError:
        return None
    if sweep_id := run.tags.get(PARENT_SWEEP_TAG):
        return _sweep(store, sweep_id)
    return Chosen(kind="run", name=run.name, runs=(run,))


def choose_all(store: RunStore, wanted: Sequence[str]) -> list[Chosen]:
    return [choose(store, word) for word in dict.fromkeys(wanted)]
