"""What a sweep would do: its trials, which of them are finished, and how long the others would take.

Creates nothing and starts nothing.
"""

import contextlib
from collections.abc import Sequence

from digitlab.config import project
from digitlab.sweep.ending.goal import Goal, wanted
from digitlab.sweep.finished import (
    OTHERS_UNKNOWN,
    FinishedRuns,
    Remaining,
    finished_runs,
    remaining,
    result_of,
)
from digitlab.sweep.manifest import Manifest, Trial
from digitlab.sweep.planning import axes
from digitlab.sweep.planning.engines import plan_chunks
from digitlab.sweep.planning.forecast import Reasons, estimate_seconds
from digitlab.sweep.search import num_trials
from digitlab.sweep.sweep_folder import DamagedManifest, SweepFolder, newest_of
from digitlab.sweep.workers.display import in_words
from digitlab.sweep.workers.executors.table import executor_of
from digitlab.text.terminal import echo
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.stored_run import StoredRun

SHOWN_TRIALS = 200


def dry_run(planned: Manifest, *, rerun: bool) -> None:
    """Print it. rerun: as if nothing were finished."""
    known = None if rerun else newest_of(project.sweeps(), planned.key)
    manifest = planned
    if known:
        with contextlib.suppress(DamagedManifest):  # it is frozen anew when it is repeated
            manifest = known.manifest().executed_like(planned)
    finished = finished_runs(manifest.study, manifest.tracking_uri)
    if manifest.is_search:
        _show_search(manifest, known, finished.runs)
        if finished.unanswered:
            echo(f"{finished.unanswered}: {OTHERS_UNKNOWN}")
        return
    rest = remaining(manifest, FinishedRuns() if rerun else finished, known)
    _show_trials(manifest, rest, Reasons(manifest, finished.runs))
    for note in rest.notes:
        echo(note)
    num_failed = sum(result.state == "FAILED" for result in rest.journal.values())
    num_finished = len(manifest.trials) - len(rest.pending) - num_failed
    failed = f", {num_failed} failed" if num_failed else ""
    pending = [] if _show_goal(manifest, rest) else rest.pending
    echo(f"{len(manifest.trials)} trials: {num_finished} finished{failed}, {len(pending)} to run")
    if pending:
        workers = executor_of(manifest).num_workers
        plan = plan_chunks(pending, manifest.settings.engine, workers)
        echo(f"engine: {plan.describe()}")
    echo(f"time: {_time(manifest, pending, finished.runs)}")


def _show_goal(manifest: Manifest, rest: Remaining) -> bool:
    """Whether the grid has what it is for, so that nothing more of it is run."""
    goal, settings = Goal(manifest), manifest.settings.sweep
    for trial in manifest.trials:
        if run := rest.runs.get(trial.number):
            goal.note(result_of(trial, run))
    if goal.trials:
        echo(goal.sentence())
    elif settings.target is not None:
        echo(f"ends early once there is a {wanted(settings.metric, settings.target)}")
    return bool(goal.trials)


def _show_trials(manifest: Manifest, rest: Remaining, reasons: Reasons) -> None:
    width = max(len(trial.name) for trial in manifest.trials)
    for trial in manifest.trials[:SHOWN_TRIALS]:
        if run := rest.runs.get(trial.number):
            state = f"finished  run {run.short_id}"
        elif result := rest.journal.get(trial.number):
            state = f"{result.state.lower():8}  by the sweep's journal"
        else:
            state = f"pending   {_cut_short(manifest, trial) or reasons.why(trial)}"
        echo(f"{trial.number:4}  {trial.name:{width}}  {state}")
    if len(manifest.trials) > SHOWN_TRIALS:
        echo(f"... and {len(manifest.trials) - SHOWN_TRIALS} more")


def _cut_short(manifest: Manifest, trial: Trial) -> str | None:
    """That a trial goes on from its checkpoint, if it does."""
    for record in all_records(project.records(), f"{manifest.id}-{trial.number:04d}*"):
        if record.has_checkpoint:
            epochs = max([line["step"] for line in record.metric_lines()], default=0)
            return f"cut short in epoch {epochs + 1}: goes on from its checkpoint"
    return None


def _show_search(manifest: Manifest, known: SweepFolder | None, runs: Sequence[StoredRun]) -> None:
    search = manifest.settings.sweep
    seeds = f" x {search.repeats} seeds" if search.repeats > 1 else ""
    pruned = "" if search.pruner == "none" else f"; the worst are given up early ({search.pruner})"
    until = "" if search.target is None else f"; until {wanted(search.metric, search.target)}"
    echo(
        f"{search.search}: {search.trials} points{seeds} by {search.metric}{pruned}{until}, chosen from"
    )
    for knob, axis in manifest.axes.items():
        echo(f"  {knob}: {axes.described(axis)}{_where(manifest, knob)}")
    goal = Goal(manifest)
    results = known.results().values() if known else []
    ended = [result for result in results if result.state != "INTERRUPTED"]
    for result in ended:
        goal.note(result)
    total = num_trials(known, manifest) if known else manifest.num_trials
    left = 0 if goal.trials else total - len(ended)
    if goal.trials:
        echo(goal.sentence())
    echo(f"{total} trials: {len(ended)} ended, {left} to run")
    echo(f"time: {_time_of_search(manifest, left, runs)}")


def _where(manifest: Manifest, knob: str) -> str:
    """` (where model=cnn)`, of a knob that only some groups have."""
    without = [base.groups for base in manifest.bases if knob in base.lacks]
    having = [base.groups for base in manifest.bases if knob not in base.lacks]
    for group in manifest.bases[0].groups if without else ():
        choices = dict.fromkeys(groups[group] for groups in having)
        if not any(groups[group] in choices for groups in without):
            return f" (where {group}={','.join(choices)})"
    return " (where there is such a knob)" if without else ""


def _time(manifest: Manifest, pending: Sequence[Trial], runs: Sequence[StoredRun]) -> str:
    if not pending:
        return "none"
    seconds = estimate_seconds([trial.values for trial in pending], runs)
    if seconds is None:
        return "unknown (no finished run of the same model, data and batch size in this study)"
    return _spread(seconds, len(pending), manifest)


def _time_of_search(manifest: Manifest, left: int, runs: Sequence[StoredRun]) -> str:
    """As if every choice of groups were made equally often and no trial given up."""
    if not left:
        return "none"
    if "batch_size" in manifest.axes or "epochs" in manifest.axes:
        return "unknown (it depends on the batch sizes and epochs that are chosen)"
    each = estimate_seconds([base.values for base in manifest.bases], runs)
    if each is None:
        return "unknown (no finished run of the same models, data and batch size in this study)"
    return f"at most {_spread(each / len(manifest.bases) * left, left, manifest)}"


def _spread(seconds: float, trials: int, manifest: Manifest) -> str:
    workers = min(executor_of(manifest).num_workers, trials)
    return f"about {in_words(seconds / workers)} with {workers} worker{'s' * (workers > 1)}"
