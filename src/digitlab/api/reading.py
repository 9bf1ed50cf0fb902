"""What the store and this disk know of runs: which there are, and their epochs. Knows no pandas."""

import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from digitlab.errors import TrackingError, UsageError
from digitlab.results.tables import UNINTERESTING
from digitlab.text.terminal import say
from digitlab.tracking import names
from digitlab.tracking.search.run_filter import (
    EVERYTHING,
    Condition,
    RunFilter,
    check_name,
    mlflow_order,
    parse_conditions,
    ranked,
    start_condition,
    status_condition,
    tag_condition,
    value_of,
)
from digitlab.tracking.stored_run import (
    NEWEST_FIRST,
    NO_SWEEPS,
    PAGE_RUNS,
    StoredRun,
    undelivered,
)

if TYPE_CHECKING:
    from digitlab.tracking.run_folder import RunFolder
    from digitlab.tracking.store import RunStore

# Of the tested weights, or of the last epoch so far; of a run that was cut short neither means much.
VALIDATION = {"FINISHED": names.CHOSEN_ACCURACY, "RUNNING": names.VALIDATION_ACCURACY}
OF_EPOCHS = (
    *(names.TRAIN_LOSS, names.TRAIN_ACCURACY, names.VALIDATION_LOSS, names.VALIDATION_ACCURACY),
    *(names.LEARNING_RATE, names.EPOCH_SECONDS, names.IMAGES_PER_SECOND),
)


def epochs_of(
    run: StoredRun, record: "RunFolder | None", store: "Callable[[], RunStore]"
) -> list[dict[str, float]]:
    """For each epoch, from 1, its number as `epoch` and its metrics.

    record: of a run that is not delivered. Of a finished run one file is read, of another the store's
    metrics.
    """
    if record:
        lines = [(line["step"], line["metrics"]) for line in record.metric_lines()]
        return _merged((step, name, value) for step, row in lines for name, value in row.items())
    opened = store()
    if content := opened.contents(run, [names.EPOCHS_FILE]).get(names.EPOCHS_FILE):
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        return [{name: _number(name, text) for name, text in row.items()} for row in rows]
    recorded = [name for name in OF_EPOCHS if name in run.metrics]
    return _merged(
        (step, name, value) for name in recorded for step, value in opened.history(run, name)
    )


def _merged(points: Iterable[tuple[int, str, float]]) -> list[dict[str, float]]:
    epochs: dict[int, dict[str, float]] = {}
    for step, name, value in points:
        if name in OF_EPOCHS:
            epochs.setdefault(step, {"epoch": step})[name] = value
    return [epochs[step] for step in sorted(epochs)]


def _number(name: str, text: str) -> float:
    return int(text) if name == "epoch" else float(text)


def store_uri(tracking_uri: str | None) -> str:
    """The address that is meant: None is what conf/ and the environment say."""
    from digitlab.config.composition import compose
    from digitlab.tracking.connection.location import resolve_uri

    return resolve_uri(tracking_uri or compose(()).tracking.uri)


def asked_for(
    uri: str,
    opened: "Callable[[str], RunStore]",
    *,
    where: Iterable[str] = (),
    tags: Iterable[str] = (),
    sweep: str | None = None,
    status: str | None = None,
    since: str | None = None,
) -> RunFilter:
    """Of what a user writes. Raises UsageError for what cannot be read, or for a sweep that is none."""
    conditions = [tag_condition(tag) for tag in tags]
    conditions += [condition for text in where if text for condition in parse_conditions(text)]
    if since is not None:
        conditions.append(start_condition(since))
    if status is not None:
        conditions.append(status_condition(status))
    if sweep is not None:
        from digitlab.sweep.lookup import sweep_id

        conditions.append(Condition(names.SWEEP_TAG, "=", sweep_id(opened(uri), sweep)))
    return RunFilter(tuple(conditions))


def recorded_runs(
    uri: str,
    opened: "Callable[[str], RunStore]",
    *,
    study: str | None,
    limit: int,
    wanted: RunFilter = EVERYTHING,
    sort: str | None = None,
) -> list[StoredRun]:
    """Those in the store and those of this disk that it lacks, newest first or as `sort` ranks them.

    One more than `limit` where there are more. opened: settles dead runs and opens the store.

    Raises:
        UsageError: no run has what is asked for by this name.
    """
    from digitlab.config import project
    from digitlab.tracking.run_folder import waiting_records

    waiting = [
        undelivered(record)
        for record in waiting_records(project.records())
        if record.run.tracking_uri == uri and study in (None, record.run.study)
    ]
    try:
        stored = _stored_runs(opened(uri), study, limit + 1, wanted, sort)
    except TrackingError as error:
        if not waiting:
            raise
        say(f"{error}; these runs are still on this disk only")
        stored = []
    # Of a run that has ended the store knows less than this disk, until its end is delivered.
    ended = {run.run_id for run in waiting if run.status != "RUNNING"}
    stored = [run for run in stored if run.tags.get(names.RECORD_TAG) not in ended]
    known = {run.tags.get(names.RECORD_TAG) for run in stored}
    local = [run for run in waiting if run.run_id not in known and wanted.matches(run)]
    of_runs = sorted(
        (run for run in local + stored if not run.is_parent), key=lambda run: -run.start_time
    )
    return (ranked(of_runs, sort) if sort else of_runs)[: limit + 1]


def varying_knobs(runs: Sequence[StoredRun]) -> list[str]:
    """The knobs that differ among the runs that have them, in the schema's order."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for knob, value in run.params.items():
            seen.setdefault(knob, set()).add(value)
    return [knob for knob, values in seen.items() if len(values) > 1 and knob not in UNINTERESTING]


def _stored_runs(
    store: "RunStore", study: str | None, limit: int, wanted: RunFilter, sort: str | None
) -> list[StoredRun]:
    """The first `limit` that are wanted, none of them RUNNING whose process is gone."""
    from digitlab.config import project
    from digitlab.tracking.connection.location import unusable
    from digitlab.tracking.leftovers import close_dead_runs

    if unusable(store.uri) is None:
        close_dead_runs(store, project.records())
    order = mlflow_order(sort) if sort else NEWEST_FIRST
    needed = limit if order else sys.maxsize  # MLflow cannot rank by it
    search_filter = " AND ".join(filter(None, [NO_SWEEPS, wanted.in_mlflow()]))
    most = min(needed, PAGE_RUNS) if wanted.is_all_in_mlflow else PAGE_RUNS
    matches: list[StoredRun] = []
    page, is_last = "", False
    while len(matches) < needed and not is_last:  # a call each: a long one is no store that hangs
        runs, page = store.search(
            study, search_filter, order=order or NEWEST_FIRST, limit=most, page=page
        )
        matches += [run for run in runs if wanted.matches(run)]
        is_last = not page
    if not matches or (sort and all(value_of(run, sort) is None for run in matches)):
        _check_names(store, study, wanted, sort)
    return matches[:needed]


def _check_names(store: "RunStore", study: str | None, wanted: RunFilter, sort: str | None) -> None:
    """That nothing matches, or can be ranked, may be for a name that no run has."""
    newest = store.runs(study, search_filter=NO_SWEEPS)
    wanted.check_names(newest)
    if sort:
        check_name(sort, newest)


def interrupted_run(reference: str) -> "RunFolder | None":
    """The run on this disk that is meant; None if it must be a sweep, or one that has ended.

    Raises:
        UsageError: several are.
    """
    from digitlab.config import project
    from digitlab.tracking.run_folder import all_records

    found = [
        record
        for record in all_records(project.records())
        if reference == record.run.record_id or (record.delivered.run_id or " ").startswith(reference)
    ]
    of_runs = [record for record in found if not record.run.is_parent]
    if len(of_runs) > 1:
        ids = ", ".join((record.delivered.run_id or "")[:12] for record in of_runs)
        raise UsageError(f"{reference} is the start of {len(of_runs)} runs: {ids}")
    return of_runs[0] if of_runs else None


def why_not_to_go_on(reference: str) -> str | None:
    """What the store knows of a run that this disk has nothing of to go on with."""
    from digitlab.tracking.connection.location import resolve_uri, unreachable
    from digitlab.tracking.delivery import open_store

    uri = resolve_uri(None)
    try:
        if unreachable(uri):
            return None
        run = open_store(uri).find(reference)
    except (UsageError, TrackingError):
        return None
    return f"{run.name!r} has ended as {run.status}: there is nothing here to go on with"
