"""The commands about one recorded run: show, resume, reproduce, export.

What they need is imported when they are called.
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitlab.api.settling import opened_store, settle_dead_runs
from digitlab.cli.completion import complete_names
from digitlab.cli.options import (
    JSON,
    OVERRIDES,
    STORE,
    TRACKING,
    store_uri,
)
from digitlab.cli.train import (
    FAIL_FAST,
    FOR,
    NOTIFY,
    RETRIES,
    SAVE_BEST,
    launched,
    print_outcome,
)
from digitlab.errors import UsageError
from digitlab.text.terminal import echo, echo_json, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from digitlab.reproduction.reproduce import Options as ReproduceOptions
    from digitlab.tracking.run_folder import RunFolder


@click.command()
@click.option("--rerun", is_flag=True, help="Run finished trials again, as a sweep of its own.")
@RETRIES
@FAIL_FAST
@SAVE_BEST
@FOR
@NOTIFY
@click.option(
    "--force", is_flag=True, help="Go on with a run though code, data or arithmetic have changed."
)
@click.argument("reference", metavar="RUN|SWEEP", shell_complete=complete_names("run", "sweep"))
def resume(reference: str, force: bool, **options: Any) -> None:
    """Go on with what was cut short: a run, or a sweep (what repeating its command does).

    RUN and SWEEP are ids, which may be shortened; a sweep's name will do, too. A run goes on at its
    last checkpoint and ends with the same bits as if it had never stopped. --rerun, --retries,
    --fail-fast, --save-best, --for and --notify are for sweeps.
    """

    sys.exit(resume_any(reference, force=force, **options))


@click.command()
@click.argument("run", metavar="RUN|FILE", shell_complete=complete_names("run", "file"))
@OVERRIDES
@click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="Another number than recorded."
)
@click.option(
    "--arithmetic", type=click.Choice(["native", "portable"]), help="Another kind than recorded."
)
@click.option(
    "--code",
    type=click.Choice(["today", "recorded"]),
    default="today",
    show_default=True,
    help="Run today's code, or the recorded commit and patch (which is code from the record).",
)
@click.option("--yes", is_flag=True, help="Run it though it asks for more than its trace shows.")
@STORE
@JSON
def reproduce(
    run: str, overrides: tuple[str, ...], tracking_uri: str | None, as_json: bool, **options: Any
) -> None:
    """Run a recorded run again and say whether the result is the same.

    RUN is its id, which may be shortened; FILE an archive by `digitlab export`, a run's record.json, or
    a configuration alone (.yaml), such as a run's config.yaml: that is run exactly as it is, but holds
    nothing to judge the result by (CANNOT, with what was not checked).
    Only the record is read, never conf/. With knobs (`digitlab reproduce RUN epochs=20`) it is a
    variation of the run, linked to it, without a verdict; data.root= only says where the data lie here.

    \b
    Exit codes:
      0  IDENTICAL: every bit; or a variation that has finished
      3  SAME COMPUTATION, OTHER ROUNDING: another arithmetic, the first ten losses agree to 1e-5
      4  DIFFERENT: with what differs first
      5  CANNOT: with what is missing
    """
    from digitlab.reproduction.presenting import show_verdict
    from digitlab.reproduction.reproduce import Options
    from digitlab.reproduction.reproduce import reproduce as run_again
    from digitlab.tracking.connection.location import resolve_uri

    asked = Options(overrides=overrides, **options)
    if Path(run).suffix in (".yaml", ".yml"):
        sys.exit(reproduce_config(Path(run), tracking_uri, asked, as_json=as_json))
    settle_dead_runs()
    done = run_again(run, resolve_uri(tracking_uri), asked)
    if done.verdict:
        show_verdict(done.verdict, done.recorded, done.repeated, as_json=as_json)
        sys.exit(done.verdict.exit_code)
    print_variation(done.recorded, done.origin, done.repeated or "", done.changes, as_json=as_json)


def print_variation(
    recorded: str, origin: str, run: str, changes: "Mapping[str, Any]", *, as_json: bool
) -> None:
    from digitlab.config.checking import as_param

    if as_json:
        echo_json({"varies": recorded, "run": run, "changes": dict(changes)})
        return
    knobs = ", ".join(f"{path}={as_param(value)}" for path, value in changes.items())
    echo(f"run {run[:8]} varies {origin} ({knobs}): no verdict on another run")


@click.command()
@click.argument(
    "run", metavar="RUN|SWEEP|STUDY", shell_complete=complete_names("run", "sweep", "study")
)
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--best", is_flag=True, help="The best run by validation of a SWEEP or STUDY.")
@STORE
def export(run: str, file: Path, best: bool, tracking_uri: str | None) -> None:
    """Write a run as one file that another clone, on another machine, can reproduce or import.

    FILE becomes an archive of all of the record, of a SWEEP or STUDY of all its finished runs; one that
    ends in .yaml or .yml the configuration alone: small, to be trained as it is (reproduce FILE) or
    varied (train --config FILE), but nothing to judge a result by.
    """
    from digitlab.tracking.connection.location import resolve_uri

    uri, about = resolve_uri(tracking_uri), ""
    if best:
        store = opened_store(uri)
        from digitlab.api.exporting import best_run

        chosen, about = best_run(store, run)
        say(f"{about}: run {chosen.short_id} ({chosen.name})")
        run = chosen.run_id
    else:
        settle_dead_runs()
    from digitlab.api.exporting import YAML, write_run

    count = write_run(run, uri, file, about=about)
    size = file.stat().st_size
    shown = f"{size / 1e3:.1f} kB" if file.suffix in YAML else f"{size / 1e6:.1f} MB"
    quoted = shlex.quote(str(file))
    if count == 1:
        echo(f"wrote {file} ({shown}); check it: digitlab reproduce {quoted}")
    else:
        echo(f"wrote {file} ({count} finished runs, {shown}); elsewhere: digitlab import {quoted}")


@click.command()
@click.argument("run", metavar="RUN", shell_complete=complete_names("run", "sweep"))
@OVERRIDES
@TRACKING
@JSON
@click.option("--plots", is_flag=True, help="First draw the pictures that the run does not have.")
def show(
    run: str, overrides: tuple[str, ...], tracking_uri: str | None, as_json: bool, plots: bool
) -> None:
    """Show everything recorded of one run.

    RUN is its id, which may be shortened as long as it is unique.
    """

    uri = store_uri(overrides, tracking_uri)
    if plots:
        draw_run(uri, run)
    show_run(uri, run, as_json=as_json)


def show_run(uri: str, prefix: str, *, as_json: bool) -> None:
    from digitlab.cli.store.tables import SHOWN, describe, print_run
    from digitlab.config import project
    from digitlab.tracking.delivery import open_answering
    from digitlab.tracking.run_folder import RunFolder, ended_here
    from digitlab.tracking.stored_run import undelivered

    settle_dead_runs()
    if record := RunFolder.named(project.records(), prefix) or ended_here(project.records(), prefix):
        description = describe(run := undelivered(record), record.sizes(), record.contents(SHOWN))
    else:
        from digitlab.sweep.lookup import shown_run

        store = open_answering(uri)
        run = shown_run(store, prefix)
        description = describe(run, store.artifacts(run), store.contents(run, SHOWN))
    if as_json:
        echo_json(description)
    else:
        print_run(run, description)


def draw_run(uri: str, prefix: str) -> None:
    """Draw the pictures that a run does not have and add them to it."""
    from digitlab.runs.pictures import draw_missing
    from digitlab.sweep.lookup import shown_run

    store = opened_store(uri)
    drawn = draw_missing(store, shown_run(store, prefix))
    say(f"drawn: {', '.join(drawn)}" if drawn else "the run has all its pictures")


def reproduce_config(
    file: Path, tracking_uri: str | None, options: "ReproduceOptions", *, as_json: bool
) -> int:
    """Run the configuration in a file and say that nothing can be judged; returns the exit code."""
    from digitlab.api.reproducing import reproduce_config as run_again
    from digitlab.reproduction.presenting import show_verdict
    from digitlab.runs.interrupts import Interrupts

    if options.code == "recorded":
        raise UsageError(f"{file} names no commit: --code recorded needs a run, or its record.json")
    chosen = {
        "threads": options.threads,
        "arithmetic": options.arithmetic,
        "tracking.uri": tracking_uri,
    }
    with Interrupts() as interrupts:
        done = run_again(file, options.overrides, chosen=chosen, yes=options.yes, interrupts=interrupts)
    run = done.outcome.run_id or done.outcome.record_id
    if not as_json:
        print_outcome(done.config, done.outcome)
    if done.verdict:
        show_verdict(done.verdict, None, run, as_json=as_json)
        return done.verdict.exit_code
    print_variation(str(file), str(file), run, done.changes, as_json=as_json)
    return 0


def resume_any(reference: str, *, force: bool, **options: Any) -> int:
    """Go on with a run from its record, or a sweep from its manifest; returns 1 if a trial failed."""
    from digitlab.api.reading import interrupted_run, why_not_to_go_on
    from digitlab.config import project

    settle_dead_runs()
    if record := interrupted_run(reference):
        _resume_run(record, force=force)
        return 0
    from digitlab.sweep.launch import Options
    from digitlab.sweep.planning.plan import refreshed
    from digitlab.sweep.sweep_folder import find_sweep

    try:
        frozen = find_sweep(project.sweeps(), reference).manifest()
    except UsageError as error:
        reason = why_not_to_go_on(reference) or f"no run {reference} was cut short, and {error}"
        raise UsageError(reason) from None
    today = refreshed(frozen)
    if today.key != frozen.key:
        say("the source or the data have changed since: its trials run again, as a sweep of their own")
    return launched(today, Options(**options))


def _resume_run(record: "RunFolder", *, force: bool) -> None:
    from digitlab.api.training import failures_as_messages
    from digitlab.reproduction.resume import resume_run
    from digitlab.runs.experiment import Session
    from digitlab.runs.interrupts import Interrupts
    from digitlab.runs.progress import TrainingProgress

    with Interrupts() as interrupts, failures_as_messages():
        session = Session(interrupts, say, TrainingProgress())
        config, outcome = resume_run(record, session, force=force)
    print_outcome(config, outcome)


COMMANDS = (show, resume, reproduce, export)
