"""The commands that say something of recorded runs: tag, note.

What they need is imported when they are called.
"""

from typing import TYPE_CHECKING

import click

from digitlab.api.settling import opened_store
from digitlab.cli.completion import complete_names
from digitlab.cli.options import STORE
from digitlab.errors import UsageError
from digitlab.text.terminal import echo

if TYPE_CHECKING:
    from digitlab.tracking.store import RunStore
    from digitlab.tracking.stored_run import StoredRun

RUNS = click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="RUN|SWEEP|STUDY... NAME=VALUE...",
    shell_complete=complete_names("run", "sweep", "study"),
)


@click.command()
@RUNS
@STORE
def tag(words: tuple[str, ...], tracking_uri: str | None) -> None:
    """Tag runs, to find them again: `digitlab runs --tag NAME=VALUE`.

    Of a sweep or a study all runs are tagged. NAME= without a value removes the tag. MLflow's UI shows
    and filters the same tags.
    """
    from digitlab.tracking.search.annotations import parse_tag

    tags = dict(parse_tag(word) for word in words if "=" in word)
    if not tags:
        raise UsageError("a tag is given as NAME=VALUE behind the runs: digitlab tag 3f2a91c0 owner=me")
    store, runs = _meant(tracking_uri, [word for word in words if "=" not in word])
    for run in runs:
        for name, value in tags.items():
            store.annotate(run, name, value)
    told = ", ".join(f"{name}={value}" if value else f"no {name}" for name, value in tags.items())
    echo(f"{_counted(runs)}: {told}")


@click.command()
@click.argument("run", shell_complete=complete_names("run"))
@click.argument("text")
@STORE
def note(run: str, text: str, tracking_uri: str | None) -> None:
    """Write a note on a run: the head of its description in MLflow, and in `digitlab runs`.

    TEXT may be Markdown; an empty one removes the note.
    """
    from digitlab.tracking.search.annotations import write_note

    store, runs = _meant(tracking_uri, [run])
    if len(runs) != 1:
        raise UsageError(f"a note is written on one run, {run} has {len(runs)}: tag them instead")
    write_note(store, runs[0], text)
    echo(f"{runs[0].short_id} {runs[0].name}: {text or 'no note'}")


def _meant(tracking_uri: str | None, words: list[str]) -> "tuple[RunStore, list[StoredRun]]":
    """Each run once, in the order of the words."""
    from digitlab.sweep.lookup import choose_all
    from digitlab.tracking.connection.location import resolve_uri

    if not words:
        raise UsageError("which run? `digitlab runs` lists them")
    store = opened_store(resolve_uri(tracking_uri))
    runs = {run.run_id: run for chosen in choose_all(store, words) for run in chosen.runs}
    return store, list(runs.values())


def _counted(runs: "list[StoredRun]") -> str:
    return f"{len(runs)} runs" if len(runs) != 1 else f"{runs[0].short_id} {runs[0].name}"


COMMANDS = (tag, note)
