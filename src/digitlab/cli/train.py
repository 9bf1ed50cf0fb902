"""The commands that train: train, sweep. What they need is imported when they are called."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitlab.api.settling import deliver_records, mark_dead_runs, say_unheeded, settle_dead_runs
from digitlab.cli.options import OVERRIDES
from digitlab.errors import UsageError
from digitlab.text.terminal import echo, say

if TYPE_CHECKING:
    from digitlab.config.schema import Config
    from digitlab.runs.experiment import Outcome
    from digitlab.sweep.ending.stop_rule import TimeLimit
    from digitlab.sweep.launch import Options
    from digitlab.sweep.manifest import Manifest


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
NOTIFY = click.option(
    "--notify",
    metavar="URL",
    callback=lambda _context, _option, address: _checked(address),
    help="POST one JSON message there when the sweep ends, well or not.",
)
FOR = click.option(
    "--for",
    "limit",
    metavar="TIME",
    callback=lambda _context, _option, text: _limit(text),
    help="Start no further trial after 90s, 10m, 2h or 1d; the same command goes on.",
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

    if multirun and file:
        raise UsageError("--config is one run: a sweep takes its knobs from conf/ and the command line")
    if multirun:
        sys.exit(sweep_trials(overrides))
    from digitlab.config.composition import compose
    from digitlab.config.given_config import read_config

    say_unheeded()
    config = read_config(file, overrides, say) if file else compose(overrides)
    dead = mark_dead_runs()
    print_outcome(config, run_config(config))
    deliver_records(dead)  # after the run: its first step waits for no store


@click.command()
@OVERRIDES
@click.option(
    "--dry-run", is_flag=True, help="Show the trials, what is finished, and the time; run none."
)
@click.option("--rerun", is_flag=True, help="Run finished trials again, as a sweep of its own.")
@RETRIES
@FAIL_FAST
@SAVE_BEST
@FOR
@NOTIFY
def sweep(overrides: tuple[str, ...], **options: Any) -> None:
    """Train every combination of the knobs that are given several values, or search for the best.

    The grammar is Hydra's: optimizer.learning_rate=0.1,0.01 model=cnn,logistic_regression
    'seed=range(5)'. conf/sweep/ has larger ones: sweep=NAME. All trials are checked before the first
    starts; the same command again finishes what was cut short and repeats nothing.

    Settings: workers=N (one for each core), executor=inprocess, engine=sequential|fused (side by side;
    default: where it pays), repeats=N (seeds for each point), sweep.search=tpe|random|gp|cmaes with
    trials=N, sweep.pruner=median|asha|hyperband, sweep.metric, sweep.target=0.99 (start no more
    trials once one has reached it).
    """

    sys.exit(sweep_trials(overrides, **options))


def sweep_trials(overrides: Sequence[str], *, dry_run: bool = False, **options: Any) -> int:
    """Run or finish a sweep; returns 1 if a trial failed."""
    from digitlab.sweep.workers.executors.worker import warm_up_early
    from digitlab.tracking.delivery import import_early

    import_early()  # beside the composing
    if dry_run:
        return show_plan(overrides, **options)
    warm_up_early(overrides)
    from digitlab.sweep.launch import Options

    return launched(composed(overrides), Options(**options))


def composed(overrides: Sequence[str]) -> "Manifest":
    from digitlab.sweep.planning.plan import plan

    say("composing")
    say_unheeded()
    settle_dead_runs()
    return plan(overrides)


def show_plan(overrides: Sequence[str], **options: Any) -> int:
    from digitlab.sweep.dry_run import dry_run
    from digitlab.sweep.presets import check_preset

    planned = composed(overrides)
    if options.get("save_best"):
        check_preset(options["save_best"])
    dry_run(planned, rerun=options.get("rerun", False))
    return 0


def launched(planned: "Manifest", options: "Options") -> int:
    """Run or finish it and show what came of it; returns 1 if a trial failed."""
    from digitlab.results.summary import print_summary
    from digitlab.runs.interrupts import Interrupts
    from digitlab.sweep.launch import launch

    with Interrupts() as interrupts, interrupts.deferred():
        done = launch(planned, options, interrupts)
        if done.before:
            echo(done.before)
        print_summary(done.summary)
        if done.saved:
            echo(done.saved)
        for note in done.notes:
            say(note)
    return int(any(result.state == "FAILED" for result in done.summary.results))


def _checked(address: str | None) -> str | None:
    """Before anything is composed."""
    if address is not None:
        from digitlab.sweep.ending.notice import check_address

        check_address(address)
    return address


def _limit(text: str | None) -> "TimeLimit | None":
    """Counted from now, when the command line is read."""
    if text is None:
        return None
    from digitlab.sweep.ending.stop_rule import TimeLimit

    return TimeLimit.from_now(text)


def run_config(config: "Config") -> "Outcome":
    from digitlab.api.training import train_config
    from digitlab.runs.interrupts import Interrupts

    with Interrupts() as interrupts:
        return train_config(config, interrupts)


def print_outcome(config: "Config", outcome: "Outcome") -> None:
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


COMMANDS = (train, sweep)
