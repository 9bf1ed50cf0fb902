"""A run as it is read back, from the store or from its record."""

import dataclasses
import re
import time
from dataclasses import dataclass
from typing import Literal

from digitlab.errors import UsageError
from digitlab.tracking.names import KIND_TAG, PRUNED_TAG
from digitlab.tracking.run_folder import RunFolder

SHORT_ID = 8
NO_SWEEPS = f"tags.`{KIND_TAG}` IS NULL"  # a filter in MLflow's syntax
NEWEST_FIRST = "attributes.start_time DESC"  # an order in MLflow's syntax
PAGE_RUNS = 1000  # of a store at once: 2.6 s of processor time
OWN_ID = "<this run>"  # in a run's tags: its id, which it gets from the store


class AmbiguousRun(UsageError):  # noqa: N818  (what is wrong with the id)
    """An id that several runs start with."""


def check_prefix(prefix: str) -> None:
    """Refuse what cannot be the start of a run id, before any store is asked."""
    if not re.fullmatch(r"[0-9a-f]{1,32}", prefix):
        raise UsageError(
            f"a run id is up to 32 of the characters 0-9 and a-f, got {prefix!r}: "
            "`digitlab runs` lists them"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as the store (or, before delivery, its record) has it. Times in ms since the epoch."""

    run_id: str
    experiment_id: str
    study: str
    name: str
    status: str
    start_time: int
    end_time: int | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    artifact_uri: str
    delivered: bool = True

    @property
    def state(self) -> str:
        """The status, but of a pruned trial, which MLflow can only call KILLED, PRUNED."""
        return "PRUNED" if PRUNED_TAG in self.tags else self.status

    @property
    def seconds(self) -> float:
        """How long it took; 0 for a run that has not ended."""
        return ((self.end_time or self.start_time) - self.start_time) / 1000

    @property
    def is_parent(self) -> bool:
        """Whether it is a sweep's parent run, which trains nothing itself."""
        return KIND_TAG in self.tags

    @property
    def short_id(self) -> str:
        return self.run_id[:SHORT_ID] if self.delivered else self.run_id


def undelivered(record: RunFolder) -> StoredRun:
    """A run whose record is still on this disk, as the store would have it."""
    run = record.run
    metrics = {k: v for line in record.metric_lines() for k, v in line["metrics"].items()}
    return StoredRun(
        run_id=run.record_id,
        experiment_id="",
        study=run.study,
        name=run.name,
        status=run.status,
        start_time=run.start_time,
        end_time=run.end_time,
        params=run.params,
        metrics=metrics,
        tags=run.tags,
        artifact_uri=record.artifacts.as_uri(),
        delivered=False,
    )


def age(start_time: int) -> str:
    """`12 s`, `5 min`, `3 h`, `2 d` since a time in ms."""
    seconds = max(time.time() - start_time / 1000, 0)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What one word on the command line means.

    runs: of a sweep or a study all of them, in any state, oldest first. own_run: the sweep's own, to
    which its summary belongs; None for a run or a study. asked: that word.
    """

    kind: Literal["run", "sweep", "study"]
    name: str
    runs: tuple[StoredRun, ...]
    own_run: StoredRun | None = None
    asked: str = ""
