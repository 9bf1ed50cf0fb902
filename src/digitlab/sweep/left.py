"""What of a sweep is left to do, and what with: finished trials stand, others wait for a start."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from digitlab.results.trial_result import TrialResult
from digitlab.sweep.ending.stop_rule import StopRule
from digitlab.sweep.finished import (
    FinishedRuns,
    belongs,
    finished_runs,
    remaining,
    result_of,
    with_history,
)
from digitlab.sweep.manifest import Manifest, Trial
from digitlab.sweep.planning.engines import plan_chunks
from digitlab.sweep.planning.forecast import Reasons
from digitlab.sweep.search import Search
from digitlab.sweep.sweep_folder import SweepFolder
from digitlab.sweep.workers.executors.executor import Executor, UnderWay
from digitlab.sweep.workers.executors.submitted_job import refuse_jobs_of_others
from digitlab.sweep.workers.executors.table import executor_of
from digitlab.sweep.workers.source import Listed, Source
from digitlab.text.terminal import say
from digitlab.tracking.stored_run import StoredRun


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What of a sweep is done, and what is not. results: that stand.

    under_way: tasks of an earlier command that still run, each with its trials that are left. engine:
    how the other trials are trained, if that is worth a line. stop_rule: when no further one of them
    starts.
    """

    results: list[TrialResult]
    num_pending: int
    source: Source
    executor: Executor
    under_way: Mapping[UnderWay, list[Trial]]
    stop_rule: StopRule
    engine: str = ""

    @property
    def num_trials(self) -> int:
        return len(self.results) + self.num_pending


def what_is_left(folder: SweepFolder, manifest: Manifest, stop_rule: StopRule, *, rerun: bool) -> Left:
    """Of a sweep whose folder this process owns. rerun: as if nothing were finished."""
    executor = executor_of(manifest)
    refuse_jobs_of_others(folder.folder, manifest.settings.executor.name)
    attached = executor.attach(folder.folder)
    if manifest.is_search:
        workers = executor.num_workers
        search = Search(folder, manifest, say=say, num_workers=workers, stop_rule=stop_rule)
        under_way = _under_way(attached, search.withdraw)
        return Left(
            results=search.results,
            num_pending=_num_pending(search.num_left, under_way, stop_rule),
            source=search,
            executor=executor,
            under_way=under_way,
            stop_rule=stop_rule,
        )
    finished = FinishedRuns() if rerun else finished_runs(manifest.study, manifest.tracking_uri)
    rest = remaining(manifest, finished, folder)
    reason = Reasons(manifest, finished.runs).why_again(rest.pending)
    for note in [*rest.notes, *([reason] if reason else [])]:
        say(note)
    earlier, results = folder.results(), dict(rest.journal)
    for trial in manifest.trials:
        if run := rest.runs.get(trial.number):
            results[trial.number] = _result(trial, run, earlier.get(trial.number), manifest)
    for result in results.values():
        stop_rule.note(result)
    waiting = {trial.number: trial for trial in rest.pending}
    under_way = _under_way(attached, lambda number: waiting.pop(number, None))
    plan = plan_chunks(list(waiting.values()), manifest.settings.engine, executor.num_workers)
    is_chosen = manifest.settings.engine.name == "fused" or len(plan.chunks) < len(waiting)
    return Left(
        results=[results[number] for number in sorted(results)],
        num_pending=_num_pending(len(rest.pending), under_way, stop_rule),
        source=Listed(plan.chunks, stop_rule),
        executor=executor,
        under_way=under_way,
        stop_rule=stop_rule,
        engine=plan.describe() if is_chosen else "",
    )


def _num_pending(num_left: int, under_way: Mapping[UnderWay, list[Trial]], stop_rule: StopRule) -> int:
    """Trials that will end now: of a sweep that has reached its target, those that still run."""
    return sum(map(len, under_way.values())) if stop_rule.is_reached else num_left


def _under_way(
    attached: Sequence[UnderWay], withdraw: Callable[[int], Trial | None]
) -> dict[UnderWay, list[Trial]]:
    """Tasks of an earlier command, each with its trials that are left.

    withdraw: takes a trial, by its number, from the trials to be started; None if it is not among them.
    """
    taken = {}
    for task in attached:
        trials = [withdraw(trial.number) for trial in task.args[0].trials]
        if known := [trial for trial in trials if trial]:
            taken[task] = known
    if taken:
        say(f"attached to trials that are under way: {sum(map(len, taken.values()))}")
    return taken


def _result(
    trial: Trial, run: StoredRun, earlier: TrialResult | None, manifest: Manifest
) -> TrialResult:
    """Of a finished trial: as the journal has it, if that tells of this run."""
    if earlier and earlier.run_id == run.run_id and earlier.state == "FINISHED":
        return earlier
    return with_history(trial, run, manifest) if belongs(run, manifest.id) else result_of(trial, run)
