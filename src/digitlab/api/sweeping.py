"""Many configurations trained together: what `digitlab sweep` does, and what came of it as data."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from digitlab.api.composing import listed
from digitlab.api.foreground import in_foreground, torch_as_it_was
from digitlab.api.recorded import Run, Runs
from digitlab.api.settling import deliver_records, mark_dead_runs, say_unheeded
from digitlab.api.training import command_of
from digitlab.config import project
from digitlab.errors import TrackingError
from digitlab.results.summary import as_markdown
from digitlab.results.trial_result import TrialResult
from digitlab.text.terminal import say, table_text
from digitlab.tracking.delivery import bounded_store, import_early
from digitlab.tracking.names import SWEEP_TAG, TRIAL_TAG
from digitlab.tracking.run_folder import waiting_records
from digitlab.tracking.stored_run import StoredRun, undelivered

if TYPE_CHECKING:
    from digitlab.results.summary import Summary
    from digitlab.runs.interrupts import Interrupts
    from digitlab.sweep.launch import Launched
    from digitlab.sweep.manifest import Manifest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Sweep:
    """A sweep that has ended, printed as its table: points ranked by validation, never by test.

    id: as every command takes it. trials: how each ended, with the knobs that vary (`swept`) and the
    reason of a failure (`error`); a failed trial raises nothing. runs: those of the trials, in their
    order. best: None if nothing finished with a validation score.
    """

    id: str
    name: str
    study: str
    runs: Runs
    best: Run | None
    trials: tuple[TrialResult, ...]
    summary: "Summary"

    @property
    def failed(self) -> tuple[TrialResult, ...]:
        return tuple(trial for trial in self.trials if trial.state == "FAILED")

    def __repr__(self) -> str:
        rows = self.summary.rows
        table = table_text([*rows[0]], [row.values() for row in rows]) if rows else "no trials"
        return "\n".join([f"sweep {self.id}  {self.name}", table, *self.summary.notes])

    def _repr_markdown_(self) -> str:
        return f"sweep `{self.id}` {self.name}\n\n{as_markdown(self.summary)}"


def sweep(
    overrides: Sequence[str], *, rerun: bool = False, retries: int = 0, fail_fast: bool = False
) -> Sweep:
    """Train every combination of the knobs that are given several values, or search for the best.

    What `digitlab sweep` does, in worker processes of this machine unless `executor=` says otherwise.
    They import nothing of the script or notebook that calls it. All trials are checked before the first
    starts; the same call again finishes what was cut short and repeats nothing. Ctrl-C stops trials at
    their next step.

    Args:
        overrides: `["optimizer.learning_rate=0.1,0.01", "seed=range(5)", "workers=2"]`.
        rerun: run finished trials again, as a sweep of its own.
        retries: how often a trial that failed is started again.
        fail_fast: stop at the first failure.

    Raises:
        ConfigError: every mistake of every trial; nothing was started.
        DataError: a data set is missing or damaged. TrackingError: the store can never take the runs.
        KeyboardInterrupt: Ctrl-C.
    """
    from digitlab.sweep.launch import Options, launch
    from digitlab.sweep.planning.plan import plan

    command = command_of("sweep", overrides)
    planned = dataclasses.replace(plan(listed(overrides)), command=command)
    options = Options(rerun=rerun, retries=retries, fail_fast=fail_fast)

    def work(interrupts: "Interrupts") -> Sweep:
        import_early()
        say_unheeded()
        deliver_records(mark_dead_runs())
        if planned.settings.executor.name == "inprocess":
            with torch_as_it_was():
                done = launch(planned, options, interrupts)
        else:
            done = launch(planned, options, interrupts)
        for line in filter(None, (done.before, *done.notes)):
            say(line)
        return _swept(done)

    return in_foreground(work)


def _swept(done: "Launched") -> Sweep:
    manifest, summary = done.manifest, done.summary
    stored, waiting = _in_store(manifest), _on_this_disk(manifest)
    runs: dict[int, Run] = {}
    for result in summary.results:
        known = stored.get(result.run_id or "") or waiting.get(str(result.number))
        if known:
            runs[result.number] = Run(known, manifest.tracking_uri)
    return Sweep(
        id=manifest.id,
        name=manifest.name,
        study=manifest.study,
        runs=Runs(runs.values()),
        best=runs.get(summary.best.number) if summary.best else None,
        trials=tuple(summary.results),
        summary=summary,
    )


def _in_store(manifest: "Manifest") -> dict[str, StoredRun]:
    """By id: those of the sweep, and those of others that it did not repeat."""
    of_sweep = f"tags.`{SWEEP_TAG}` LIKE '%{manifest.id}%'"
    try:
        runs = bounded_store(manifest.tracking_uri).all_runs(manifest.study, of_sweep)
    except TrackingError as error:
        say(f"{error}; runs that are only in the store are missing here")
        return {}
    return {run.run_id: run for run in runs}


def _on_this_disk(manifest: "Manifest") -> dict[str, StoredRun]:
    """By the number of the trial: those that are not delivered yet."""
    runs = [undelivered(record) for record in waiting_records(project.records())]
    return {run.tags[TRIAL_TAG]: run for run in runs if run.tags.get(SWEEP_TAG) == manifest.id}
