"""The commands that make room: du, rm, restore, gc.

What they need is imported when they are called.
"""

from typing import TYPE_CHECKING

import click

from digitlab.api.settling import opened_store
from digitlab.cli.completion import complete_names
from digitlab.cli.options import JSON, STORE
from digitlab.errors import DeletedError, UsageError
from digitlab.text.terminal import echo, echo_json, show_table

if TYPE_CHECKING:
    from digitlab.tracking.store import RunStore
    from digitlab.tracking.stored_run import StoredRun

WORDS = click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="RUN|SWEEP|STUDY...",
    shell_complete=complete_names("run", "sweep", "study"),
)
YES = click.option("--yes", is_flag=True, help="Do it; without it nothing is removed.")
PURGE = click.option("--purge", is_flag=True, help="For good, with all artifacts: frees their room.")


@click.command()
@click.option(
    "--by",
    type=click.Choice(["study", "sweep", "run"]),
    default="study",
    show_default=True,
    help="A line for each of them.",
)
@STORE
@JSON
def du(by: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show the room on the disk: artifacts, removed runs, records, sweeps, database."""
    from digitlab.cli.store.emptying import part_of
    from digitlab.config import project
    from digitlab.tracking.removal.sizes import artifact_bytes, megabytes, other_bytes

    store = _store(tracking_uri)
    rows: dict[tuple[str, str], list[int]] = {}
    for study in store.studies():
        for run in store.all_runs(study):
            rows.setdefault((study, part_of(run, by)), []).append(artifact_bytes(run))
    if removed := store.removed_runs():
        rows["", "removed, until purged"] = [*map(artifact_bytes, removed)]
    others = other_bytes(store.uri, project.records(), project.sweeps())
    lines = [(*name, len(sizes), sum(sizes)) for name, sizes in rows.items()]
    lines.sort(key=lambda line: -line[-1])
    lines += [("", what, 0, size) for what, size in others.items() if size]
    if as_json:
        keys = ("study", "what", "runs", "bytes")
        echo_json([dict(zip(keys, line, strict=True)) for line in lines])
        return
    lines.append(("", "all", sum(line[2] for line in lines), sum(line[3] for line in lines)))
    cells = [(study, what, str(n or ""), megabytes(size)) for study, what, n, size in lines]
    show_table(("study", "what", "runs", "size"), cells, right=("runs", "size"))


@click.command()
@WORDS
@YES
@PURGE
@STORE
def rm(words: tuple[str, ...], yes: bool, purge: bool, tracking_uri: str | None) -> None:
    """Remove runs, sweeps or studies; says first what would go, and what stays and why.

    `digitlab restore` brings back what was removed, until it is purged: with --purge at once, or by
    `digitlab gc --purge`. A run stays that a registered model, an unfinished sweep or the reproduction
    of a run that stays needs.
    """
    from digitlab.cli.store.emptying import settle
    from digitlab.cli.store.removal import plan, removed_runs, with_sweeps
    from digitlab.sweep.lookup import choose
    from digitlab.tracking.names import PARENT_SWEEP_TAG

    store = _store(tracking_uri)
    runs: dict[str, StoredRun] = {}
    removed: list[StoredRun] = []
    studies, sweeps = list[str](), list[str]()
    for word in dict.fromkeys(words):
        try:
            chosen = choose(store, word)
        except DeletedError:
            if not purge:
                raise
            removed += removed_runs(store, word)
            continue
        meant = store.all_runs(word) if chosen.kind == "study" else chosen.runs
        runs |= {run.run_id: run for run in meant}
        if chosen.own_run:
            runs[chosen.own_run.run_id] = chosen.own_run
            sweeps.append(chosen.own_run.tags[PARENT_SWEEP_TAG])
        studies += [word] * (chosen.kind == "study")
    removal = plan(store, with_sweeps(store, [*runs.values()]), sweeps)
    settle(store, removal, removed, studies, yes=yes, purge=purge)


@click.command()
@click.option("--older", metavar="WHEN", help="Only runs that had ended by then: 30d, 2026-05-31.")
@click.option("--failed", is_flag=True, help="Only runs that failed or were killed, not pruned.")
@click.option(
    "--keep-best",
    type=click.IntRange(1),
    metavar="N",
    help="Keep so many of each study, by validation accuracy.",
)
@click.option("--study", metavar="STUDY", shell_complete=complete_names("study"))
@YES
@PURGE
@STORE
def gc(
    older: str | None,
    failed: bool,
    keep_best: int | None,
    study: str | None,
    yes: bool,
    purge: bool,
    tracking_uri: str | None,
) -> None:
    """Remove old or failed runs; says first what would go, and what stays and why.

    With --purge for good, together with all that was removed before; alone it purges only that.

    \b
      digitlab gc --older 30d --keep-best 3
      digitlab gc --failed --yes
      digitlab gc --purge --yes
    """
    from digitlab.cli.store.emptying import settle
    from digitlab.cli.store.removal import Removal, old_runs, plan, with_sweeps
    from digitlab.tracking.search.run_filter import start_condition

    chooses = older or failed or keep_best
    if not chooses and not purge:
        raise UsageError("which runs? --older 30d, --failed, --keep-best 3, or several of them")
    before = int(start_condition(older).value) if older else None
    store = _store(tracking_uri)
    removal = Removal([], [])
    if chooses:
        runs = old_runs(store, study=study, before=before, is_failed=failed, keep_best=keep_best or 0)
        removal = plan(store, with_sweeps(store, runs))
    removed = store.removed_runs() if purge else []
    settle(store, removal, removed, yes=yes, purge=purge)


@click.command()
@WORDS
@STORE
def restore(words: tuple[str, ...], tracking_uri: str | None) -> None:
    """Bring back removed runs, sweeps or studies that were not purged."""
    from digitlab.cli.store.emptying import counted
    from digitlab.cli.store.removal import removed_runs
    from digitlab.tracking.removal.trash import Trash

    store = _store(tracking_uri)
    trash = Trash(store.uri)
    for word in dict.fromkeys(words):
        was_removed = trash.restore_study(word)
        runs = removed_runs(store, word, may_be_none=was_removed)
        trash.restore(runs)
        echo(f"{word}: the study is back" if was_removed else f"{word}: {counted(runs)} back")


def _store(tracking_uri: str | None) -> "RunStore":
    from digitlab.tracking.connection.location import resolve_uri

    return opened_store(resolve_uri(tracking_uri))


COMMANDS = (du, rm, restore, gc)
