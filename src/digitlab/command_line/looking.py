"""The subcommands that look at what there is: what they are called with."""

import sys

import click

from digitlab.command_line.options import JSON, OVERRIDES, TRACKING, store_uri
from digitlab.completion import complete_names


@click.command()
@OVERRIDES
@click.option(
    "--study",
    metavar="STUDY",
    shell_complete=complete_names("study"),
    help="Only the runs of this study.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=30, show_default=True, metavar="N")
@TRACKING
@JSON
def runs(
    overrides: tuple[str, ...], study: str | None, limit: int, tracking_uri: str | None, as_json: bool
) -> None:
    """List runs with the knobs that vary and their accuracies."""
    from digitlab import looking

    looking.list_runs(store_uri(overrides, tracking_uri), study=study, limit=limit, as_json=as_json)


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
    from digitlab import looking

    uri = store_uri(overrides, tracking_uri)
    if plots:
        looking.draw_run(uri, run)
    looking.show_run(uri, run, as_json=as_json)


@click.command()
@JSON
def sweeps(as_json: bool) -> None:
    """List sweeps and how far they are."""
    from digitlab import looking

    looking.list_sweeps(as_json=as_json)


@click.command()
@click.argument(
    "overrides",
    nargs=-1,
    metavar="[RUN|SWEEP]",
    shell_complete=complete_names("run", "sweep", "override"),
)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 5000, or the next free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--study",
    metavar="STUDY",
    shell_complete=complete_names("study"),
    help="Open this study; default: the one with the newest run.",
)
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
    uri = store_uri([text for text in overrides if "=" in text], tracking_uri)
    opened = wanted[0] if wanted else None
    user_interface.serve(uri, host=host, port=port, study=study, wanted=opened)


@click.command()
@OVERRIDES
@click.option("--sources", is_flag=True, help="Say which file or override set each knob.")
@click.option("--knobs", is_flag=True, help="Explain every knob and what it may be.")
def config(overrides: tuple[str, ...], sources: bool, knobs: bool) -> None:
    """Print the resolved configuration; creates no run."""
    from digitlab import looking

    if knobs:
        looking.explain_knobs(overrides)
    elif sources:
        looking.print_sources(overrides)
    else:
        looking.print_config(overrides)


@click.command()
@OVERRIDES
@click.option("--clean", is_flag=True, help="Remove what crashes have left in mlruns/.")
@TRACKING
def doctor(overrides: tuple[str, ...], clean: bool, tracking_uri: str | None) -> None:
    """Say what is ill here, and what heals it.

    Checks environment, data sets, tracking store, dead runs and disk; exit code 1 if any is ill.
    """
    from digitlab import doctor

    if clean:
        doctor.clean()
    sys.exit(doctor.examine(store_uri(overrides, tracking_uri)))


@click.command()
@click.option("--tracking-uri", metavar="URI", help="Deliver to this store instead of each run's own.")
def sync(tracking_uri: str | None) -> None:
    """Deliver the runs whose tracking store was away."""
    from digitlab import commands
    from digitlab.tracking.location import resolve_uri

    sys.exit(commands.sync(resolve_uri(tracking_uri) if tracking_uri else None))


COMMANDS = (runs, show, sweeps, ui, config, doctor, sync)
