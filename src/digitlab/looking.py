"""What the subcommands do that look at what there is: runs, sweeps, the configuration."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from digitlab import project, yaml_text
from digitlab.checking import knobs, to_dict
from digitlab.commands import require, settle_dead_runs
from digitlab.composition import compose, sources
from digitlab.record import Record, waiting_records
from digitlab.terminal import echo, say
from digitlab.tracking.location import unreachable, unusable

if TYPE_CHECKING:
    from digitlab.tracking.runs import StoredRun


def list_sweeps(*, as_json: bool) -> None:
    from digitlab.sweep.listing import describe_sweeps, print_sweeps

    rows = describe_sweeps(project.sweeps())
    if as_json:
        echo(json.dumps(rows, indent=1))
    elif rows:
        print_sweeps(rows)
    else:
        echo("no sweeps yet: `digitlab sweep seed=0,1` makes the first")


def print_config(overrides: Sequence[str]) -> None:
    echo(yaml_text.dump(to_dict(compose(overrides))), nl=False)


def print_sources(overrides: Sequence[str]) -> None:
    found = sources(overrides)
    rows = [(path, json.dumps(value), source) for path, (value, source) in found.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for path, value, source in rows:
        echo(f"{path:{widths[0]}}  {value:{widths[1]}}  {source}")


def explain_knobs(overrides: Sequence[str]) -> None:
    """All knobs; with overrides only those of the composition that they choose."""
    choices: dict[str, str | None] = {}
    if overrides:
        config = compose(overrides)
        choices = {group: getattr(config, group).name for group in ("model", "optimizer", "scheduler")}
    for knob in knobs(choices).values():
        if not knob.path.endswith(".name"):
            whose = f" (only {knob.group})" if knob.group else ""
            echo(f"{knob.path:26} {knob.help}{whose}\n{'':26} {knob.allowed}")
    for group, names in project.groups().items():
        echo(f"{group + '=':26} choices: {', '.join(names)}")


def list_runs(uri: str, *, study: str | None, limit: int, as_json: bool) -> None:
    settle_dead_runs()
    from digitlab.tables import plain, print_runs
    from digitlab.tracking.runs import undelivered

    _mention_waiting(uri)
    waiting = [
        undelivered(record)
        for record in waiting_records(project.records())
        if record.run.tracking_uri == uri and study in (None, record.run.study)
    ]
    reason = unreachable(uri)
    if reason and not waiting:
        require(uri)
    if reason:
        say(f"{reason}; these runs are still on this disk only")
    stored = [] if reason else _stored_runs(uri, study, limit + 1)
    known = {run.tags.get("digitlab.record") for run in stored}
    local = [run for run in waiting if run.run_id not in known]
    of_runs = [run for run in local + stored if run.tags.get("digitlab.kind") != "sweep"]
    newest = sorted(of_runs, key=lambda run: -run.start_time)
    runs = newest[:limit]
    if as_json:
        echo(json.dumps([plain(run) for run in runs], indent=1))
    elif runs:
        print_runs(runs)
    else:
        echo("no runs yet: `digitlab train` makes the first")
    if len(newest) > limit:
        say(f"the newest {limit} runs: --limit N shows more")


def _stored_runs(uri: str, study: str | None, limit: int) -> "list[StoredRun]":
    """The newest runs in the store, none of them RUNNING whose process is gone."""
    from digitlab.reaping import close_dead_runs
    from digitlab.tracking.delivery import open_store
    from digitlab.tracking.runs import NO_SWEEPS

    store = open_store(uri)
    if unusable(uri) is None:
        close_dead_runs(store, project.records())
    return store.runs(study, limit=limit, search_filter=NO_SWEEPS)


def _mention_waiting(uri: str) -> None:
    """Runs for other stores are not in the table; say that they are waiting."""
    waiting: dict[str, int] = {}
    for record in waiting_records(project.records()):
        if record.run.status != "RUNNING" and record.run.tracking_uri != uri:
            store = record.run.tracking_uri
            waiting[store] = waiting.get(store, 0) + 1
    for store, count in waiting.items():
        say(f"not yet delivered to {store}: {count} (`digitlab sync` delivers)")


def show_run(uri: str, prefix: str, *, as_json: bool) -> None:
    settle_dead_runs()
    from digitlab.showing import describe, describe_record, print_run
    from digitlab.tracking.runs import undelivered

    if record := Record.named(project.records(), prefix):
        run, description = undelivered(record), describe_record(record)
    else:
        require(uri)
        from digitlab.comparison.choosing import shown_run
        from digitlab.tracking.delivery import open_store

        store = open_store(uri)
        run = shown_run(store, prefix)
        with tempfile.TemporaryDirectory() as scratch:
            description = describe(store, run, Path(scratch))
    if as_json:
        echo(json.dumps(description, indent=1))
    else:
        print_run(run, description)


def draw_run(uri: str, prefix: str) -> None:
    """Draw the pictures that a run does not have and add them to it."""
    from digitlab.comparison.choosing import shown_run
    from digitlab.pictures import draw_missing
    from digitlab.tracking.delivery import open_store

    require(uri)
    store = open_store(uri)
    drawn = draw_missing(store, shown_run(store, prefix))
    say(f"drawn: {', '.join(drawn)}" if drawn else "the run has all its pictures")
