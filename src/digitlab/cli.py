"""The `digitlab` command: reads the command line and hands over. Imports nothing slow at the top."""

import atexit
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from digitlab import __version__
from digitlab.completion import complete_override, register_shells
from digitlab.errors import DigitlabError, Interrupted

EPILOG = """\b
Examples:
  digitlab train model=cnn epochs=5
  digitlab train experiment=cnn_best seed=1
  digitlab sweep model=cnn,logistic_regression 'seed=range(3)'
  digitlab sweeps
  digitlab config model=cnn optimizer=sgd --sources
  digitlab runs --study quickstart
  digitlab show 3f2a91c0
  digitlab reproduce 3f2a91c0
  digitlab ui
"""

OVERRIDES = click.argument(
    "overrides", nargs=-1, metavar="[KNOB=VALUE]...", shell_complete=complete_override
)
STORE = click.option(
    "--tracking-uri", metavar="URI", help="Tracking store; default: MLFLOW_TRACKING_URI or mlruns/."
)
TRACKING = click.option(
    "--tracking-uri", metavar="URI", help="Tracking store; default: what conf/ and the environment say."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
RETRIES = click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=0,
    metavar="N",
    help="Start a trial that failed again.",
)
FAIL_FAST = click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
SAVE_BEST = click.option(
    "--save-best", metavar="NAME", help="Write the winner to conf/experiment/NAME.yaml."
)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="digitlab")
def cli() -> None:
    """Train, record and compare handwritten-digit experiments.

    Exit codes: 0 done, 1 a run failed, 2 a mistake on the command line or in conf/, 3 data missing or
    damaged, 4 the tracking store failed, 129/130/143 stopped by SIGHUP/Ctrl-C/SIGTERM.
    """


@cli.command()
@OVERRIDES
@click.option("-m", "--multirun", is_flag=True, help="The same as `digitlab sweep`.")
def train(overrides: tuple[str, ...], multirun: bool) -> None:
    """Train, test and record one run (or several with --multirun).

    Overrides follow Hydra's grammar: model=cnn optimizer.learning_rate=1e-3 experiment=cnn_best.
    `digitlab config --knobs` explains them all.
    """
    from digitlab import commands

    if multirun:
        sys.exit(commands.sweep(overrides))
    commands.train_one(overrides)


@cli.command()
@OVERRIDES
@click.option(
    "--dry-run", is_flag=True, help="Show the trials, what is finished, and the time; run none."
)
@click.option("--rerun", is_flag=True, help="Run finished trials again, as a sweep of its own.")
@RETRIES
@FAIL_FAST
@SAVE_BEST
def sweep(overrides: tuple[str, ...], **options: Any) -> None:
    """Train every combination of the knobs that are given several values, or search for the best.

    The grammar is Hydra's: optimizer.learning_rate=0.1,0.01 model=cnn,logistic_regression
    'seed=range(5)'. conf/sweep/ has larger ones: sweep=NAME. All trials are checked before the first
    starts; the same command again finishes what was cut short and repeats nothing.

    Settings: workers=N (one for each core), executor=inprocess, engine=sequential|fused (side by side;
    default: where it pays), repeats=N (seeds for each point), sweep.search=tpe|random|gp|cmaes with
    trials=N, sweep.pruner=median|asha|hyperband, sweep.metric.
    """
    from digitlab import commands

    sys.exit(commands.sweep(overrides, **options))


@cli.command()
@click.option("--rerun", is_flag=True, help="Run finished trials again, as a sweep of its own.")
@RETRIES
@FAIL_FAST
@SAVE_BEST
@click.option(
    "--force", is_flag=True, help="Go on with a run though code, data or arithmetic have changed."
)
@click.argument("wanted", metavar="RUN|SWEEP")
def resume(wanted: str, force: bool, **options: Any) -> None:
    """Go on with what was cut short: a run, or a sweep (what repeating its command does).

    RUN and SWEEP are ids, which may be shortened; a sweep's name will do, too. A run goes on at its
    last checkpoint and ends with the same bits as if it had never stopped. --rerun, --retries,
    --fail-fast and --save-best are for sweeps.
    """
    from digitlab import commands

    sys.exit(commands.resume(wanted, force=force, **options))


@cli.command()
@click.argument("run", metavar="RUN|FILE")
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
@STORE
@JSON
def reproduce(run: str, overrides: tuple[str, ...], tracking_uri: str | None, **options: Any) -> None:
    """Run a recorded run again and say whether the result is the same.

    RUN is its id, which may be shortened; FILE an archive by `digitlab export`. Only the record is
    read, never conf/. With knobs (`digitlab reproduce RUN epochs=20`) it is a variation of the run,
    linked to it, without a verdict.

    \b
    Exit codes:
      0  IDENTICAL: every bit
      3  SAME COMPUTATION, OTHER ROUNDING: another arithmetic, the first losses agree to 1e-6
      4  DIFFERENT: with what differs first
      5  CANNOT: with what is missing
    """
    from digitlab.reproduction.reproducing import Options
    from digitlab.reproduction.reproducing import reproduce as run_again
    from digitlab.tracking.location import resolve_uri

    sys.exit(run_again(run, resolve_uri(tracking_uri), Options(overrides=overrides, **options)))


@cli.command()
@click.argument("run", metavar="RUN")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@STORE
def export(run: str, file: Path, tracking_uri: str | None) -> None:
    """Write a run as one archive that another clone, on another machine, can reproduce."""
    from digitlab.reproduction.reproducing import export as write
    from digitlab.tracking.location import resolve_uri

    write(run, resolve_uri(tracking_uri), file)
    click.echo(
        f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB); check it: digitlab reproduce {file}"
    )


@cli.command()
@JSON
def sweeps(as_json: bool) -> None:
    """List sweeps and how far they are."""
    from digitlab import commands

    commands.list_sweeps(as_json=as_json)


@cli.command()
@OVERRIDES
@click.option("--sources", is_flag=True, help="Say which file or override set each knob.")
@click.option("--knobs", is_flag=True, help="Explain every knob and what it may be.")
def config(overrides: tuple[str, ...], sources: bool, knobs: bool) -> None:
    """Print the resolved configuration; creates no run."""
    from digitlab import commands

    if knobs:
        commands.explain_knobs(overrides)
    elif sources:
        commands.print_sources(overrides)
    else:
        commands.print_config(overrides)


@cli.command()
@OVERRIDES
@click.option("--study", metavar="STUDY", help="Only the runs of this study.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=30, show_default=True, metavar="N")
@TRACKING
@JSON
def runs(
    overrides: tuple[str, ...], study: str | None, limit: int, tracking_uri: str | None, as_json: bool
) -> None:
    """List runs with the knobs that vary and their accuracies."""
    from digitlab import commands

    commands.list_runs(_uri(overrides, tracking_uri), study=study, limit=limit, as_json=as_json)


@cli.command()
@click.argument("run", metavar="RUN")
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
    from digitlab import commands

    uri = _uri(overrides, tracking_uri)
    if plots:
        commands.draw_run(uri, run)
    commands.show_run(uri, run, as_json=as_json)


@cli.command()
@click.argument("overrides", nargs=-1, metavar="[RUN|SWEEP]", shell_complete=complete_override)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 5000, or the next free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--study", metavar="STUDY", help="Open this study; default: the one with the newest run.")
@TRACKING
def ui(
    overrides: tuple[str, ...],
    port: int | None,
    host: str,
    study: str | None,
    tracking_uri: str | None,
) -> None:
    """Start the MLflow UI and link to the runs; Ctrl-C ends it.

    With a run's id the link opens the run, with a sweep's id or name its comparison.
    """
    from digitlab import user_interface
    from digitlab.errors import UsageError

    wanted = [text for text in overrides if "=" not in text]
    if len(wanted) > 1:
        raise UsageError(f"one run or sweep can be opened, got {len(wanted)}: {' '.join(wanted)}")
    if wanted and study:
        raise UsageError("--study opens a study: leave it out, or the run or sweep")
    uri = _uri([text for text in overrides if "=" in text], tracking_uri)
    opened = wanted[0] if wanted else None
    user_interface.serve(uri, host=host, port=port, study=study, wanted=opened)


@cli.command()
@OVERRIDES
@TRACKING
def doctor(overrides: tuple[str, ...], tracking_uri: str | None) -> None:
    """Say what is ill here, and what heals it.

    Checks environment, data sets, tracking store, dead runs and disk; exit code 1 if any is ill.
    """
    from digitlab.doctor import examine

    sys.exit(examine(_uri(overrides, tracking_uri)))


@cli.command()
@click.option("--tracking-uri", metavar="URI", help="Deliver to this store instead of each run's own.")
def sync(tracking_uri: str | None) -> None:
    """Deliver the runs whose tracking store was away."""
    from digitlab import commands
    from digitlab.tracking.location import resolve_uri

    sys.exit(commands.sync(resolve_uri(tracking_uri) if tracking_uri else None))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the TAB completion script of a shell.

    For bash: eval "$(digitlab completion bash)"
    """
    from digitlab.completion import script

    click.echo(script(cli, shell))


def _uri(overrides: Sequence[str], tracking_uri: str | None) -> str:
    """The tracking store that `tracking=`, `tracking.uri=`, --tracking-uri or the environment mean."""
    from digitlab.composition import compose
    from digitlab.errors import UsageError
    from digitlab.tracking.location import resolve_uri

    wrong = [o for o in overrides if not o.startswith(("tracking=", "tracking.uri="))]
    if wrong:
        raise UsageError(f"only tracking=NAME and tracking.uri=URI are understood here, got {wrong[0]}")
    return resolve_uri(tracking_uri or compose(overrides).tracking.uri)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line; errors that are a user's business become one message and an exit code."""
    gc.set_threshold(100_000, 50, 100)  # what is imported stays: 0.3 s of fruitless collections less
    atexit.register(gc.freeze)  # the last ones, at the end of the process: 0.5 s less
    register_shells()
    try:
        cli.main(arguments, prog_name="digitlab", standalone_mode=False)
    except click.NoSuchOption as error:
        hint = " (knobs have no dashes: epochs=3)" if error.option_name.startswith("--") else ""
        _complain(f"{error.format_message()}{hint}")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except Interrupted as error:
        _complain("stopped")
        sys.exit(error.exit_code)
    except DigitlabError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # `digitlab runs | head`
        sys.exit(0)


def _complain(message: str) -> None:
    for line in message.splitlines():
        click.echo(f"digitlab: {line}", err=True)


if __name__ == "__main__":
    main()
