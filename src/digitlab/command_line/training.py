"""The subcommands that train: what they are called with. What they do is imported when they do it."""

import sys
from pathlib import Path
from typing import Any

import click

from digitlab.command_line.options import JSON, OVERRIDES, STORE
from digitlab.completion import complete_names
from digitlab.terminal import echo

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


@click.command()
@OVERRIDES
@click.option("-m", "--multirun", is_flag=True, help="The same as `digitlab sweep`.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Train what a run's config.yaml, or `digitlab config`, says, not conf/.",
)
def train(overrides: tuple[str, ...], multirun: bool, file: Path | None) -> None:
    """Train, test and record one run (or several with --multirun).

    Overrides follow Hydra's grammar: model=cnn optimizer.learning_rate=1e-3 experiment=cnn_best.
    `digitlab config --knobs` explains them all.
    """
    from digitlab import commands
    from digitlab.errors import UsageError

    if multirun and file:
        raise UsageError("--config is one run: a sweep takes its knobs from conf/ and the command line")
    if multirun:
        sys.exit(commands.sweep(overrides))
    commands.train_one(overrides, file)


@click.command()
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


@click.command()
@click.option("--rerun", is_flag=True, help="Run finished trials again, as a sweep of its own.")
@RETRIES
@FAIL_FAST
@SAVE_BEST
@click.option(
    "--force", is_flag=True, help="Go on with a run though code, data or arithmetic have changed."
)
@click.argument("wanted", metavar="RUN|SWEEP", shell_complete=complete_names("run", "sweep"))
def resume(wanted: str, force: bool, **options: Any) -> None:
    """Go on with what was cut short: a run, or a sweep (what repeating its command does).

    RUN and SWEEP are ids, which may be shortened; a sweep's name will do, too. A run goes on at its
    last checkpoint and ends with the same bits as if it had never stopped. --rerun, --retries,
    --fail-fast and --save-best are for sweeps.
    """
    from digitlab import commands

    sys.exit(commands.resume(wanted, force=force, **options))


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
def reproduce(run: str, overrides: tuple[str, ...], tracking_uri: str | None, **options: Any) -> None:
    """Run a recorded run again and say whether the result is the same.

    RUN is its id, which may be shortened; FILE an archive by `digitlab export`, or a run's record.json
    (or its config.yaml: that is run, but holds nothing to judge the result by).
    Only the record is read, never conf/. With knobs (`digitlab reproduce RUN epochs=20`) it is a
    variation of the run, linked to it, without a verdict; data.root= only says where the data lie here.

    \b
    Exit codes:
      0  IDENTICAL: every bit
      3  SAME COMPUTATION, OTHER ROUNDING: another arithmetic, the first ten losses agree to 1e-5
      4  DIFFERENT: with what differs first
      5  CANNOT: with what is missing
    """
    from digitlab import commands
    from digitlab.reproduction.reproducing import Options
    from digitlab.reproduction.reproducing import reproduce as run_again
    from digitlab.tracking.location import resolve_uri

    asked = Options(overrides=overrides, **options)
    if Path(run).suffix in (".yaml", ".yml"):
        sys.exit(commands.reproduce_config(Path(run), tracking_uri, asked))
    sys.exit(run_again(run, resolve_uri(tracking_uri), asked))


@click.command()
@click.argument("run", metavar="RUN", shell_complete=complete_names("run"))
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@STORE
def export(run: str, file: Path, tracking_uri: str | None) -> None:
    """Write a run as one archive that another clone, on another machine, can reproduce."""
    from digitlab.reproduction.reading import export as write
    from digitlab.tracking.location import resolve_uri

    write(run, resolve_uri(tracking_uri), file)
    echo(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB); check it: digitlab reproduce {file}")


COMMANDS = (train, sweep, resume, reproduce, export)
