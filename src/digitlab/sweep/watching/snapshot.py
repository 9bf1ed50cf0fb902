"""How far a sweep is at one moment: by its folder on this disk, or by a store alone.

Writes nothing, and needs no process of the sweep.
"""

import dataclasses
import time
from collections.abc import Iterable

from digitlab.config import project
from digitlab.config.kinds import Metric
from digitlab.results.summary import Summary, summarise
from digitlab.results.trial_result import State, TrialResult
from digitlab.sweep.manifest import Trial
from digitlab.sweep.overview import CAN_GO_ON, describe
from digitlab.sweep.search import num_needed, trials_made
from digitlab.sweep.sweep_folder import SweepFolder
from digitlab.tracking import names
from digitlab.tracking.run_folder import DamagedRecord, RunFolder
from digitlab.tracking.stored_run import Chosen, StoredRun

ENDED: dict[str, State] = {"FINISHED": "FINISHED", "FAILED": "FAILED", "PRUNED": "PRUNED"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A trial that is trained. epoch: the last one finished, from 1. value: of the metric then."""

    number: int
    name: str
    epoch: int
    epochs: int
    value: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """status: as `digitlab sweeps` has it. num_trials: that there will be. seconds: of its work so far.
    share: of its epochs that are done, in [0, 1], without those that an earlier invocation did."""

    id: str
    name: str
    study: str
    status: str
    num_trials: int
    metric: Metric
    summary: Summary
    running: list[Running]
    seconds: float
    share: float

    @property
    def is_over(self) -> bool:
        return self.status not in ("running", "detached")

    @property
    def seconds_left(self) -> float | None:
        """If it goes on at this pace; None before an epoch is done, and at its end."""
        if self.is_over or not self.share:
            return None
        return self.seconds * (1 - self.share) / self.share


def of_folder(folder: SweepFolder) -> Snapshot:
    """Raises DigitlabError if its manifest is damaged."""
    manifest, row = folder.manifest(), describe(folder)
    metric = manifest.settings.sweep.metric
    trials = {t.number: t for t in (*manifest.trials, *trials_made(folder, manifest))}
    results = {n: r for n, r in folder.results().items() if r.state != "INTERRUPTED"}
    events = folder.events()
    begun = max((k for k, event in enumerate(events) if event["event"] == "working"), default=0)
    before = {e["number"] for e in events[:begun] if e["event"] == "ended"} & results.keys()
    reused = sum(event.get("reused", 0) for event in events[begun : begun + 1])
    running = [] if row["status"] in CAN_GO_ON else _running(events[begun:], trials, metric)
    total = num_needed(folder, manifest)
    of_others = len(before) + reused
    done = len(results) - len(before) + sum(one.epoch / one.epochs for one in running)
    return Snapshot(
        id=manifest.id,
        name=manifest.name,
        study=manifest.study,
        status=row["status"],
        num_trials=total,
        metric=metric,
        summary=summarise(results.values(), metric),
        running=running,
        seconds=_seconds(events[begun:], is_over=row["status"] not in ("running", "detached")),
        share=min(done / max(total - of_others, 1), 1.0),
    )


def of_store(chosen: Chosen) -> Snapshot:
    """Of a sweep of another machine: what its runs in the store say; there it is seconds behind."""
    own = chosen.own_run
    assert own is not None, "it is a sweep"
    metric: Metric = names.VALIDATION_LOSS
    if own.params.get("sweep.metric") == names.VALIDATION_ACCURACY:
        metric = names.VALIDATION_ACCURACY
    total = int(own.params.get("sweep.trials", len(chosen.runs)))
    results = [_result(run) for run in chosen.runs if run.state in ENDED]
    running = [_of_run(run, metric) for run in chosen.runs if run.state == "RUNNING"]
    done = len(results) + sum(one.epoch / one.epochs for one in running)
    end = time.time() if own.end_time is None else own.end_time / 1000
    return Snapshot(
        id=own.tags[names.PARENT_SWEEP_TAG],
        name=own.name,
        study=own.study,
        status=own.status.lower(),
        num_trials=total,
        metric=metric,
        summary=summarise(results, metric),
        running=running,
        seconds=end - own.start_time / 1000,
        share=min(done / max(total, 1), 1.0),
    )


def _running(
    events: Iterable[dict[str, object]], trials: dict[int, Trial], metric: Metric
) -> list[Running]:
    """What has begun and not ended: an executor is handed some that it has not begun yet."""
    begun: dict[int, str] = {}
    for event in events:
        number = event.get("number")
        if event["event"] == "started" and isinstance(number, int):
            begun[number] = str(event.get("record", ""))
        elif event["event"] == "ended" and isinstance(number, int):
            begun.pop(number, None)
    there = ((trials[number], record) for number, record in begun.items() if number in trials)
    found = (_of_record(trial, record, metric) for trial, record in there)
    return [one for one in found if one]


def _of_record(trial: Trial, record_id: str, metric: Metric) -> Running | None:
    try:
        record = RunFolder.named(project.records(), record_id)
    except DamagedRecord:  # or just being made
        record = None
    if record is None:
        return None
    lines = [line for line in record.metric_lines() if metric in line["metrics"]]
    return Running(
        number=trial.number,
        name=trial.name,
        epoch=int(lines[-1]["step"]) if lines else 0,
        epochs=int(trial.values["epochs"]),
        value=lines[-1]["metrics"][metric] if lines else None,
    )


def _of_run(run: StoredRun, metric: Metric) -> Running:
    """The store's list of runs says no epoch: it is taken by the clock."""
    epochs, seconds = int(run.params["epochs"]), run.metrics.get(names.EPOCH_SECONDS, 0.0)
    spent = time.time() - run.start_time / 1000
    return Running(
        number=int(run.tags.get(names.TRIAL_TAG, 0)),
        name=run.name,
        epoch=min(int(spent / seconds), epochs) if seconds else 0,
        epochs=epochs,
        value=run.metrics.get(metric),
    )


def _result(run: StoredRun) -> TrialResult:
    number = int(run.tags.get(names.TRIAL_TAG, 0))
    start = len(names.SWEPT_TAG)
    return TrialResult(
        number=number,
        point=number,
        name=run.name,
        state=ENDED[run.state],
        swept={k[start:]: v for k, v in run.tags.items() if k.startswith(names.SWEPT_TAG)},
        run_id=run.run_id,
        metrics=run.metrics,
        seconds=run.seconds,
    )


def _seconds(events: list[dict[str, object]], *, is_over: bool) -> float:
    """From the beginning of the work to now, or to its end."""
    times = [time_ for event in events if isinstance(time_ := event.get("time"), int)]
    if not times:
        return 0.0
    end = times[-1] / 1000 if is_over else time.time()
    return max(end - times[0] / 1000, 0.0)
