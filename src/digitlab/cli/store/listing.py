"""The commands about all there is: runs, sweeps, watch, ui, doctor, sync.

What they need is imported when they are called.
"""

import sys
from typing import Any

import click

from digitlab.api.settling import mark_dead_runs, opened_store
from digitlab.cli.completion import complete_names
from digitlab.cli.options import (
    JSON,
    OVERRIDES,
    STORE,
    TRACKING,
    store_uri,
)
from digitlab.errors import UsageError
from digitlab.text.terminal import echo, echo_json, say
from digitlab.tracking.names import STATES


@click.command()
@OVERRIDES
@click.option(
    "--study",
    metavar="STUDY",
    shell_complete=complete_names("study"),
    help="Only the runs of this study.",
)
@click.option(
    "--sweep",
    metavar="SWEEP",
    shell_complete=complete_names("sweep"),
    help="Only the trials of this sweep (id or name).",
)
@click.option(
    "--status",
    type=click.Choice(STATES, case_sensitive=False),
    help="Only the runs that stand so; PRUNED: given up by a search.",
)
@click.option("--since", metavar="WHEN", help="Only the runs started since: 2d, 90min, 2026-05-31.")
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True, help="Only the runs so tagged.")
@click.option(
    "--where",
    metavar="CONDITION",
    multiple=True,
    help="Only the runs of which this holds; see below.",
)
@click.option(
    "--sort",
    metavar="NAME",
    help="By a metric the best first, by a knob the smallest; default: the newest first.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=30, show_default=True, metavar="N")
@click.option("--page", type=click.IntRange(1), default=1, metavar="K", help="The K-th N of them.")
@TRACKING
@JSON
def runs(
    overrides: tuple[str, ...],
    limit: int,
    page: int,
    tracking_uri: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """List runs with the knobs that vary and their accuracies.

    \b
    A CONDITION is NAME OPERATOR VALUE, several joined by AND:
      digitlab runs --where "model.name = 'cnn' AND test/accuracy > 0.98"
      digitlab runs --where "optimizer.learning_rate <= 1e-3" --since 7d
      digitlab runs --study digits --sort test/accuracy --limit 1
    NAME is a knob, a metric, a tag, or status, name, study, sweep, seconds.
    OPERATOR is one of = != > >= < <= LIKE ILIKE (% stands for any text).
    """
    uri = store_uri(overrides, tracking_uri)
    list_runs(uri, limit=limit, page=page, as_json=as_json, **asked)


@click.command()
@JSON
def sweeps(as_json: bool) -> None:
    """List sweeps and how far they are."""
    from digitlab.config import project
    from digitlab.sweep.overview import describe_sweeps, print_sweeps

    rows = describe_sweeps(project.sweeps())
    if as_json:
        echo_json(rows)
    elif rows:
        print_sweeps(rows)
    else:
        echo("no sweeps yet: `digitlab sweep seed=0,1` makes the first")


@click.command()
@click.argument("sweep", required=False, shell_complete=complete_names("sweep"))
@click.option("--once", is_flag=True, help="Show how far it is now, and end.")
@STORE
def watch(sweep: str | None, once: bool, tracking_uri: str | None) -> None:
    """Watch a sweep: what runs, what waits, the best so far, how long it will take.

    SWEEP is an id or a name; default: the newest. One that another machine runs is shown as far as the
    store knows it. Ctrl-C ends the watching, never the sweep.
    """
    from digitlab.cli.store.watching import watch as watch_sweep

    watch_sweep(sweep, tracking_uri, once=once)


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
    from digitlab.cli import ui as user_interface

    references = [text for text in overrides if "=" not in text]
    if len(references) > 1:
        raise UsageError(
            f"one run or sweep can be opened, got {len(references)}: {' '.join(references)}"
        )
    if references and study:
        raise UsageError("--study opens a study: leave it out, or the run or sweep")
    uri = store_uri([text for text in overrides if "=" in text], tracking_uri)
    opened = references[0] if references else None
    user_interface.serve(uri, host=host, port=port, study=study, reference=opened)


@click.command()
@OVERRIDES
@click.option("--clean", is_flag=True, help="Remove what crashes have left in mlruns/.")
@TRACKING
def doctor(overrides: tuple[str, ...], clean: bool, tracking_uri: str | None) -> None:
    """Say what is wrong here, and how to mend it.

    Marks environment, data sets, tracking store, dead runs and disk OK, WARN, or FAIL with the remedy;
    exit code 1 if any is FAIL.
    """
    from digitlab.cli import doctor

    if clean:
        doctor.clean()
    sys.exit(doctor.examine(store_uri(overrides, tracking_uri)))


@click.command()
@click.option("--tracking-uri", metavar="URI", help="Deliver to this store instead of each run's own.")
def sync(tracking_uri: str | None) -> None:
    """Deliver the runs whose tracking store was away."""
    from digitlab.tracking.connection.location import resolve_uri

    sys.exit(deliver_waiting(resolve_uri(tracking_uri) if tracking_uri else None))


def list_runs(
    uri: str,
    *,
    study: str | None,
    sort: str | None,
    limit: int,
    page: int,
    as_json: bool,
    **asked: Any,
) -> None:
    """asked: see api.reading.asked_for."""
    from digitlab.api.reading import asked_for, recorded_runs
    from digitlab.cli.store.tables import plain, print_runs

    wanted = asked_for(uri, opened_store, **asked)  # refuses a mistake before the store is read
    _mention_waiting(uri)
    matches = recorded_runs(
        uri, opened_store, study=study, limit=limit * page, wanted=wanted, sort=sort
    )
    runs = matches[limit * (page - 1) : limit * page]
    if as_json:
        echo_json([plain(run) for run in runs])
    elif runs:
        print_runs(runs)
    elif matches:
        echo(f"no page {page}: there are {len(matches)} runs")
    else:
        echo("no such runs" if wanted.conditions else "no runs yet: `digitlab train` makes the first")
    if len(matches) > limit * page:
        which = "the first" if sort else "the newest"
        what = f"{which} {limit} runs" if page == 1 else f"page {page}"
        say(f"{what}: --page {page + 1} shows the next, --limit N more")


def _mention_waiting(uri: str) -> None:
    """Runs for other stores are not in the table; say that they are waiting."""
    from digitlab.config import project
    from digitlab.tracking.run_folder import waiting_records

    waiting: dict[str, int] = {}
    for record in waiting_records(project.records()):
        if record.run.status != "RUNNING" and record.run.tracking_uri != uri:
            store = record.run.tracking_uri
            waiting[store] = waiting.get(store, 0) + 1
    for store, count in waiting.items():
        say(f"not yet delivered to {store}: {count} (`digitlab sync` delivers)")


def deliver_waiting(elsewhere: str | None) -> int:
    """Deliver every finished record, to its own store or `elsewhere`; returns 0 if nothing is left."""
    from digitlab.config import project
    from digitlab.tracking.delivery import SYNC_SECONDS, Delivery
    from digitlab.tracking.run_folder import waiting_records

    mark_dead_runs()
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


COMMANDS = (runs, sweeps, watch, ui, doctor, sync)
