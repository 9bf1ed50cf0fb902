"""Recorded runs as data: one, or a sequence of them. Reads, and changes nothing."""

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from digitlab.api.reading import (
    VALIDATION,
    asked_for,
    epochs_of,
    recorded_runs,
    store_uri,
    varying_knobs,
)
from digitlab.config.checking import from_param
from digitlab.config.schema import Config
from digitlab.errors import UsageError
from digitlab.results.tables import markdown_table, percent, short_title
from digitlab.text.terminal import printable, table_text
from digitlab.tracking import names
from digitlab.tracking.stored_run import StoredRun, undelivered

if TYPE_CHECKING:
    import pandas as pd

    from digitlab.tracking.run_folder import RunFolder
    from digitlab.tracking.store import RunStore

MAX_SHOWN = 30  # rows of a printed table
ABOUT = ("name", "status", "started", "seconds")  # columns of a frame
HIDDEN_TAGS = ("mlflow.", names.PROCESS_TAG)
MOST_RUNS = 1_000_000


class Run:
    """A run as it was recorded when it was asked for; ask again for one that was under way.

    Two are equal if they are the same run, whenever they were asked for.

    Attributes:
        id: in the tracking store; of a run that is not delivered yet, that of its record on this disk.
        name: for people, such as `cnn adam lr=0.001 seed=0`.
        study: the question it answers; its experiment in MLflow.
        status: FINISHED, RUNNING, FAILED, KILLED, or PRUNED (a search gave it up).
        knobs: its whole configuration by dotted path, values as numbers, texts, booleans and None.
        metrics: the last value of each: `test/accuracy` in [0, 1], `test/loss` in nats, ...
        tags: everything else that was noted, as text: code, data, machine, sweep.
        tracking_uri: the store that it was read from.
        stored: what the rest of digitlab knows of it.
    """

    def __init__(self, stored: StoredRun, uri: str) -> None:
        self.stored, self.tracking_uri = stored, uri
        self.id, self.name, self.study = stored.run_id, stored.name, stored.study
        self.status = stored.state
        self.metrics: Mapping[str, float] = stored.metrics
        self.tags: Mapping[str, str] = stored.tags

    @cached_property
    def knobs(self) -> Mapping[str, Any]:
        return {path: from_param(path, text) for path, text in self.stored.params.items()}

    @property
    def started(self) -> datetime.datetime:
        """In UTC."""
        return datetime.datetime.fromtimestamp(self.stored.start_time / 1000, datetime.UTC)

    @property
    def seconds(self) -> float:
        """How long it took; 0 while it goes on."""
        return self.stored.seconds

    @property
    def config(self) -> Config:
        """Its configuration, to be trained again or printed.

        Raises:
            UsageError: it has left none. ConfigError: it does not fit today's schema.
        """
        from digitlab.config.checking import recorded_config
        from digitlab.config.knobs import text_knobs
        from digitlab.models.saved import CONFIG_FILE
        from digitlab.text import yaml_text

        return recorded_config(yaml_text.load(self.artifact(CONFIG_FILE).decode(), text_knobs()))

    def artifact(self, name: str) -> bytes:
        """The content of a file that it has left: `per_class.csv`, `confusion_matrix.png`, ...

        Raises:
            UsageError: it has left no such file.
        """
        if record := self._record():
            contents = record.contents([name])
            if name not in contents:
                raise UsageError(f"run {self.stored.short_id} is {self.status}: it has left no {name}")
            return contents[name]
        return self._store().content(self.stored, name)

    def history(self) -> "pd.DataFrame":
        """One row an epoch: `epoch` (from 1), `train/loss`, `validation/accuracy`, ..."""
        return Runs([self]).history().drop(columns=["run_id", "name"])

    def epochs(self) -> list[dict[str, float]]:
        """The same without pandas: for each epoch its number and metrics."""
        return epochs_of(self.stored, self._record(), self._store)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and (self.id, self.tracking_uri) == (other.id, other.tracking_uri)

    def __hash__(self) -> int:
        return hash((self.id, self.tracking_uri))

    def __repr__(self) -> str:
        parts = [f"Run {self.stored.short_id}", printable(self.name), self.status]
        parts += [f"{title} {text}" for title, text in _scores(self).items() if text != "-"]
        return "  ".join(parts)

    def _row(self) -> dict[str, Any]:
        """Of a frame."""
        about = dict(zip(ABOUT, (self.name, self.status, self.started, self.seconds), strict=True))
        tags = {name: text for name, text in self.tags.items() if not name.startswith(HIDDEN_TAGS)}
        return {**about, **self.knobs, **self.metrics, **tags}

    def _store(self) -> "RunStore":
        from digitlab.tracking.delivery import bounded_store, check_answering

        check_answering(self.tracking_uri)
        return bounded_store(self.tracking_uri)

    def _record(self) -> "RunFolder | None":
        """Its folder on this disk, until it is delivered."""
        from digitlab.config import project
        from digitlab.tracking.run_folder import RunFolder

        return None if self.stored.delivered else RunFolder.named(project.records(), self.id)


class Runs(Sequence[Run]):
    """Runs in an order, printed as a table. A slice is a `Runs`, too."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = tuple(runs)

    @overload
    def __getitem__(self, place: int) -> Run: ...
    @overload
    def __getitem__(self, place: slice) -> "Runs": ...
    def __getitem__(self, place: int | slice) -> "Run | Runs":
        return Runs(self._runs[place]) if isinstance(place, slice) else self._runs[place]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def to_pandas(self) -> "pd.DataFrame":
        """One row a run, indexed by `run_id`.

        Columns: `name`, `status`, `started` (UTC), `seconds`; every knob by its path
        (`optimizer.learning_rate`), every metric by its name (`test/accuracy`), and every tag
        (`sweep`, `digitlab.commit`) but MLflow's own. A knob, metric or tag that a run lacks is missing
        (NaN) in its row.
        """
        import pandas as pd

        ids = pd.Index([run.id for run in self._runs], name="run_id", dtype="str")
        rows = [run._row() for run in self._runs]
        return pd.DataFrame(rows, index=ids) if rows else pd.DataFrame(columns=ABOUT, index=ids)

    def history(self) -> "pd.DataFrame":
        """One row for each epoch of each run, in order: `run_id`, `name`, `epoch` (from 1), metrics.

        To draw all learning curves: `runs.history().pivot(index="epoch", columns="run_id",
        values="validation/accuracy").plot()`.
        """
        import pandas as pd

        rows = [
            {"run_id": run.id, "name": run.name, **epoch}
            for run in self._runs
            for epoch in run.epochs()
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["run_id", "name", "epoch"])

    def __repr__(self) -> str:
        if not self._runs:
            return "no runs"
        titles, rows = self._table()
        return "\n".join([table_text(titles, rows, right=["validation", "test"]), *self._more()])

    def _repr_markdown_(self) -> str:
        if not self._runs:
            return "no runs"
        titles, rows = self._table()
        return "\n\n".join([markdown_table([titles, *rows]), *self._more()])

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """The knobs that vary, and what came out."""
        shown = self._runs[:MAX_SHOWN]
        knobs = varying_knobs([run.stored for run in self._runs])
        titles = ["run", "status", "model", *map(short_title, knobs), "validation", "test"]
        rows = [
            [
                run.stored.short_id,
                run.status,
                run.stored.params.get("model.name", "-"),
                *(run.stored.params.get(knob, "-") for knob in knobs),
                *_scores(run).values(),
            ]
            for run in shown
        ]
        return titles, [[printable(cell) for cell in row] for row in rows]

    def _more(self) -> list[str]:
        more = len(self._runs) - MAX_SHOWN
        return [f"… and {more} more"] if more > 0 else []


def runs(
    study: str | None = None,
    *,
    where: str = "",
    sweep: str | None = None,
    status: str | None = None,
    since: str | None = None,
    sort: str | None = None,
    limit: int = MOST_RUNS,
    tracking_uri: str | None = None,
) -> Runs:
    """The recorded runs of a study, or of all studies, the newest first.

    Runs that are not delivered yet are among them. A sweep's own run, which trains nothing, is not.

    Args:
        study: its name. None: all of them.
        where: conditions on knobs, metrics and tags: `"model.name = 'cnn' AND test/accuracy > 0.98"`.
        sweep: only the trials of the sweep with this id or name.
        status: FINISHED, RUNNING, FAILED, KILLED or PRUNED.
        since: started within `"2d"` or after `"2026-05-31"`.
        sort: a metric, of which the best comes first, or a knob, of which the smallest does.
        limit: at most so many.
        tracking_uri: the store; None: what conf/ and the environment say, as for every command.

    Raises:
        UsageError: there is no such study or sweep, or a condition cannot be read. TrackingError: the
            store does not answer.
    """
    from digitlab.api.settling import reading_store

    uri = store_uri(tracking_uri)
    wanted = asked_for(uri, reading_store, where=[where], sweep=sweep, status=status, since=since)
    stored = recorded_runs(uri, reading_store, study=study, limit=limit, wanted=wanted, sort=sort)
    return Runs(Run(run, uri) for run in stored[:limit])


def find_run(uri: str, run_id: str) -> Run:
    """By its whole id, in the store or, not delivered yet, on this disk.

    Raises:
        UsageError: there is none. TrackingError: the store does not answer.
    """
    from digitlab.config import project
    from digitlab.tracking.delivery import bounded_store, check_answering
    from digitlab.tracking.run_folder import RunFolder

    if record := RunFolder.named(project.records(), run_id):
        return Run(undelivered(record), uri)
    check_answering(uri)
    return Run(bounded_store(uri).find(run_id), uri)


def _scores(run: Run) -> dict[str, str]:
    return {
        "validation": percent(run.metrics.get(VALIDATION.get(run.status, ""))),
        "test": percent(run.metrics.get(names.TEST_ACCURACY)),
    }
