"""A sweep shown until it ends: on a terminal again and again, on a pipe once."""

import time
from collections.abc import Callable

from rich.console import Group
from rich.live import Live

from digitlab.api.settling import reading_store
from digitlab.config import project
from digitlab.errors import UsageError
from digitlab.sweep.sweep_folder import SweepFolder, all_sweeps, find_sweep
from digitlab.sweep.watching.page import page
from digitlab.sweep.watching.snapshot import Snapshot, of_folder, of_store
from digitlab.text.terminal import console, say, styled

EVERY_SECONDS, EVERY_SECONDS_OF_STORE = 0.5, 3.0


def watch(word: str | None, tracking_uri: str | None, *, once: bool) -> None:
    """Raises UsageError: there is no such sweep, here or in the store."""
    look, every = _looking(word, tracking_uri)
    out, snapshot = console(soft_wrap=True), look()
    if once or not out.is_terminal:
        out.print(_shown(snapshot))
        return
    with Live(_shown(snapshot), console=out, refresh_per_second=4) as live:
        try:
            while not snapshot.is_over:
                time.sleep(every)
                snapshot = look()
                live.update(_shown(snapshot))
        except KeyboardInterrupt:
            pass
    if not snapshot.is_over:
        say("the sweep goes on")


def _shown(snapshot: Snapshot) -> Group:
    return Group(*(styled(text, style) for text, style in page(snapshot)))


def _looking(word: str | None, tracking_uri: str | None) -> tuple[Callable[[], Snapshot], float]:
    """A function that takes a snapshot, and the seconds between two."""
    folder = None if tracking_uri else _on_this_disk(word)
    if folder:
        return lambda: of_folder(folder), EVERY_SECONDS
    if word is None:
        raise UsageError("which sweep? `digitlab sweeps` lists those of this disk")
    from digitlab.sweep.lookup import choose
    from digitlab.tracking.connection.location import resolve_uri

    store = reading_store(resolve_uri(tracking_uri))

    def look() -> Snapshot:
        chosen = choose(store, word)
        if chosen.own_run is None:
            raise UsageError(f"{word} is a {chosen.kind}, no sweep: `digitlab sweeps` lists them")
        return of_store(chosen)

    return look, EVERY_SECONDS_OF_STORE


def _on_this_disk(word: str | None) -> SweepFolder | None:
    """The sweep of that id or name, or the newest; None if this disk has none."""
    if word is None:
        return next(iter(all_sweeps(project.sweeps())), None)
    try:
        return find_sweep(project.sweeps(), word)
    except UsageError:
        return None
