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
from digitlab.tracking.names import PARENT_SWEEP_TAG, SWEEP_TAG
from digitlab.tracking.registry import Registry, is_registered_name
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import AmbiguousRun, Chosen, StoredRun


def choose(store: RunStore, word: str) -> Chosen:
    """A study by its name, a sweep by its id or name, or a run; ids may be shortened.

    A run may also be asked for as the registered model that came of it: `NAME@alias`, `NAME/VERSION`.

    Raises:
        UsageError: it is none of them, or more than one.
    """
    if store.experiment_id(word) is not None:
        runs = tuple(run for run in store.all_runs(word) if not run.is_parent)
        return Chosen(kind="study", name=word, runs=runs, asked=word)
    matches = [chosen for chosen in (_sweep(store, word), _run(store, word)) if chosen]
    if not matches and is_registered_name(word):
        run = store.find(Registry(store.uri).run_id(word))
        return Chosen(kind="run", name=run.name, runs=(run,), asked=word)
    if not matches:
        raise UsageError(
            f"{word!r} is no run, sweep or study in this store{_nearest(store, word)}: "
            "`digitlab runs` lists runs, `digitlab sweeps` sweeps"
        )
    if len(matches) > 1:
        raise UsageError(
            f"{word} is the start of a run's id ({matches[1].runs[0].short_id}, {matches[1].name!r}) "
            f"and of the sweep {matches[0].name!r}: give more of it"
        )
    return replace(matches[0], asked=word)


def shown_run(store: RunStore, word: str) -> StoredRun:
    """The run, or a sweep's own run by the sweep's id or name.

    Raises:
        UsageError: it is neither, or a study.
    """
    chosen = choose(store, word)
    if chosen.kind == "study":
        raise UsageError(
            f"{word} is a study: `digitlab runs --study {shlex.quote(word)}` lists its runs"
        )
    return chosen.own_run or chosen.runs[0]


def sweep_id(store: RunStore, word: str) -> str:
    """Of a sweep by its id, its name or its own run's id. Raises UsageError."""
    chosen = _sweep(store, word) or choose(store, word)
    if chosen.own_run is None:
        raise UsageError(f"{word} is a {chosen.kind}, no sweep: `digitlab sweeps` lists them")
    return chosen.own_run.tags[PARENT_SWEEP_TAG]


def _nearest(store: RunStore, word: str) -> str:
    matches = difflib.get_close_matches(word, store.studies(), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _sweep(store: RunStore, word: str) -> Chosen | None:
    sweep_id = word
    with suppress(UsageError):
        sweep_id = find_sweep(project.sweeps(), word).id
    if not re.fullmatch(r"[\w-]+", sweep_id):
        return None
    own_run = store.with_tag(PARENT_SWEEP_TAG, sweep_id)
    if own_run is None:
        return None
    trials = store.all_runs(own_run.study, f"tags.`{SWEEP_TAG}` LIKE '%{sweep_id}%'")
    runs = tuple(run for run in trials if belongs(run, sweep_id))
    return Chosen(kind="sweep", name=own_run.name, runs=runs, own_run=own_run)


def _run(store: RunStore, word: str) -> Chosen | None:
    """None if there is none; raises UsageError if there are several, or if a sweep's own was named."""
    try:
        run = store.find(word)
    except AmbiguousRun:
        raise
    except UsageError:
        return None
    if sweep_id := run.tags.get(PARENT_SWEEP_TAG):
        return _sweep(store, sweep_id)
    return Chosen(kind="run", name=run.name, runs=(run,))


def choose_all(store: RunStore, words: Sequence[str]) -> list[Chosen]:
    return [choose(store, word) for word in dict.fromkeys(words)]
