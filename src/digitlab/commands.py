"""What the subcommands do, once their arguments are read."""

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitlab import project
from digitlab.checking import set_leaf, to_config, to_dict
from digitlab.composition import compose, multirun
from digitlab.config import Config
from digitlab.errors import DigitlabError, TrackingError, UsageError, machine_refusal
from digitlab.given_config import read_config
from digitlab.record import Record, all_records, waiting_records, wrong_clock
from digitlab.sweep.results import TrialResult
from digitlab.terminal import echo, say
from digitlab.tracking.location import (
    resolve_uri,
    sqlite_file,
    undeliverable,
    unreachable,
)

if TYPE_CHECKING:
    from digitlab.experiment import Outcome
    from digitlab.reproduction import reproducing


def train_one(overrides: Sequence[str], file: Path | None) -> None:
    """Train what conf/ or `file`, a run's config.yaml, says under overrides."""
    say_unheeded()
    config = read_config(file, overrides, say) if file else compose(overrides)
    dead = _close_dead_runs()
    _summarise(config, _run(config))
    _deliver(dead)  # after the run: its first step waits for no store


def reproduce_config(file: Path, tracking_uri: str | None, options: "reproducing.Options") -> int:
    """Run the configuration in a file and say that nothing can be judged; returns the exit code."""
    from digitlab.reproduction.reproducing import show_verdict
    from digitlab.reproduction.verdict import Verdict

    if options.overrides:
        raise UsageError(f"to vary it: digitlab train --config {shlex.quote(str(file))} KNOB=VALUE")
    if options.code == "recorded":
        raise UsageError(f"{file} names no commit: --code recorded needs a run, or its record.json")
    chosen = {
        "threads": options.threads,
        "arithmetic": options.arithmetic,
        "tracking.uri": tracking_uri,
    }
    values = to_dict(read_config(file, (), say))
    for knob, value in chosen.items():
        if value is not None:
            set_leaf(values, knob, value)
    config = to_config(values)
    say(f"{file} holds knobs alone, no trace of a run: it is trained, and there is nothing to judge by")
    outcome = _run(config)
    if not options.as_json:
        _summarise(config, outcome)
    verdict = Verdict(
        kind="CANNOT",
        cause=f"{file} holds no trace of a run to compare with, nor its code and data",
        details=[
            "to judge: digitlab reproduce with the run's id, its record.json, or an archive of it"
        ],
    )
    show_verdict(verdict, None, outcome.run_id or outcome.record_id, as_json=options.as_json)
    return verdict.exit_code


def sweep(overrides: Sequence[str], **options: Any) -> int:
    """Run or finish a sweep; returns 1 if a trial failed."""
    from digitlab.tracking.delivery import import_early

    import_early()  # beside the composing
    from digitlab.sweep.hydra_bridge import REQUEST
    from digitlab.sweep.launching import Options

    say("composing")
    say_unheeded()
    settle_dead_runs()
    REQUEST.options = Options(**options)

    def task(values: dict[str, Any]) -> None:
        config = to_config(values)
        _summarise(config, _run(config))

    returned = multirun(overrides, task)
    return _code([result for result in returned or [] if isinstance(result, TrialResult)])


def resume(wanted: str, *, force: bool, **options: Any) -> int:
    """Go on with a run from its record, or a sweep from its manifest; returns 1 if a trial failed."""
    settle_dead_runs()
    if record := _interrupted_run(wanted):
        _resume_run(record, force=force)
        return 0
    from digitlab.sweep.launching import Options, launch
    from digitlab.sweep.manifest import find_sweep
    from digitlab.sweep.planning import refreshed

    try:
        frozen = find_sweep(project.sweeps(), wanted).manifest()
    except UsageError as error:
        reason = _why_not_to_go_on(wanted) or f"no run {wanted} was cut short, and {error}"
        raise UsageError(reason) from None
    today = refreshed(frozen)
    if today.key != frozen.key:
        say("the source or the data have changed since: its trials run again, as a sweep of their own")
    return _code(launch(today, Options(**options)))


def _interrupted_run(wanted: str) -> Record | None:
    """The run that is meant; None if it must be a sweep, or one that has ended."""
    records = project.records()
    found = [
        record
        for record in all_records(records)
        if wanted == record.run.record_id or (record.delivered.run_id or " ").startswith(wanted)
    ]
    of_runs = [record for record in found if record.run.tags.get("digitlab.kind") != "sweep"]
    if len(of_runs) > 1:
        ids = ", ".join((record.delivered.run_id or "")[:12] for record in of_runs)
        raise UsageError(f"{wanted} is the start of {len(of_runs)} runs: {ids}")
    return of_runs[0] if of_runs else None


def _why_not_to_go_on(wanted: str) -> str | None:
    """What the store knows of a run that this disk has nothing of to go on with."""
    from digitlab.tracking.delivery import open_store

    uri = resolve_uri(None)
    try:
        if unreachable(uri):
            return None
        run = open_store(uri).find(wanted)
    except (UsageError, TrackingError):
        return None
    return f"{run.name!r} has ended as {run.status}: there is nothing here to go on with"


def _resume_run(record: Record, *, force: bool) -> None:
    from digitlab.interrupts import Interrupts
    from digitlab.resuming import resume_run

    with Interrupts() as interrupts, _failures_told():
        config, outcome = resume_run(record, force=force, interrupts=interrupts, say=say)
    _summarise(config, outcome)


def _code(results: Sequence[TrialResult]) -> int:
    return int(any(result.state == "FAILED" for result in results))


def sync(elsewhere: str | None) -> int:
    """Deliver every finished record, to its own store or `elsewhere`; returns 0 if nothing is left."""
    from digitlab.tracking.delivery import SYNC_SECONDS, Delivery

    _close_dead_runs()
    waiting = [r for r in waiting_records(project.records()) if r.run.status != "RUNNING"]
    failed = 0
    for record in waiting:
        if not record.try_to_own():
            continue  # another process is at it
        if elsewhere:
            record.redirect(elsewhere)
        if Delivery(record, say).finish(seconds=SYNC_SECONDS):
            echo(f"delivered {record.run.name} ({record.delivered.run_id})")
        else:
            failed += 1
        record.release()
    if failed:
        say("to deliver elsewhere: digitlab sync --tracking-uri URI; to drop a run: delete its folder")
    if not waiting:
        echo("nothing to deliver")
    return 4 if failed else 0


def say_unheeded() -> None:
    """MLflow's own variables that choose what knobs choose here."""
    from digitlab.tracking.environment import UNHEEDED

    for variable, instead in UNHEEDED.items():
        if os.environ.get(variable):
            say(f"{variable} has no effect: {instead}")


def _run(config: Config) -> "Outcome":
    from digitlab.tracking.delivery import import_early

    import_early(resolve_uri(config.tracking.uri))  # beside the import of torch
    from digitlab.experiment import run_experiment
    from digitlab.interrupts import Interrupts
    from digitlab.progress import TrainingProgress

    with Interrupts() as interrupts, _failures_told():
        return run_experiment(config, interrupts=interrupts, say=say, watch=TrainingProgress())


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    """Whatever a run may fail with as one message."""
    try:
        yield
    except DigitlabError:
        raise
    except Exception as error:
        refusal, kept = machine_refusal(error), getattr(error, "__notes__", [])
        if refusal is None and not kept:  # nothing holds its traceback
            raise
        cause = refusal or f"{type(error).__name__}: {error}"
        raise DigitlabError("; ".join([f"the run failed: {cause}", *kept])) from error


def _summarise(config: Config, outcome: "Outcome") -> None:
    scores = outcome.evaluation.scores
    right, total = outcome.evaluation.confusion.trace(), len(outcome.evaluation.labels)
    reference = outcome.run_id[:8] if outcome.run_id else outcome.record_id
    took = f"in {outcome.seconds:.1f} s"
    echo(f"run {reference}  {outcome.name}  FINISHED {took}  (study {config.study})")
    if (last := len(outcome.history)) < config.epochs:
        stopping = config.early_stopping
        echo(
            f"  stopped early after epoch {last}: no better {stopping.metric} "
            f"in {stopping.patience} epochs"
        )
    if chosen := outcome.history[outcome.chosen_epoch - 1].validation:
        echo(f"  validation  accuracy {100 * chosen.accuracy:.2f} %  loss {chosen.loss:.4f}")
    echo(
        f"  test        accuracy {100 * scores.accuracy:.2f} %  loss {scores.loss:.4f}  "
        f"({right} of {total} right, weights of epoch {outcome.chosen_epoch})"
    )
    if outcome.run_id:
        where = f" tracking.uri={shlex.quote(config.tracking.uri)}" if config.tracking.uri else ""
        echo(
            f"  look at it: digitlab show {reference}{where}   compare: digitlab runs{where}   "
            f"digitlab ui{where}"
        )


def require(uri: str) -> None:
    """Raises TrackingError if the store cannot be read, within 3 s."""
    if reason := unreachable(uri):
        start_it = "" if sqlite_file(uri) else "start it, or "
        raise TrackingError(f"{reason}; {start_it}choose another with tracking.uri=URI")


def settle_dead_runs() -> None:
    """Mark and deliver runs whose process is gone: what is looked at afterwards is true."""
    _deliver(_close_dead_runs())


def _close_dead_runs() -> list[Record]:
    """Mark runs whose process is gone; every command that deals with runs begins with it."""
    from digitlab.reaping import close_dead_records

    if problem := wrong_clock():
        say(problem)
    return close_dead_records(all_records(project.records()), say)


def _deliver(records: Sequence[Record]) -> None:
    from digitlab.tracking.delivery import Delivery

    for record in records:
        if undeliverable(record.run.tracking_uri) is None:
            Delivery(record, say).finish()
