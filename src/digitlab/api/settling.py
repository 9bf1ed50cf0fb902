"""What comes before runs are shown or made: runs of dead processes are marked, and a store answers."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from digitlab.text.terminal import say

if TYPE_CHECKING:
    from digitlab.tracking.run_folder import RunFolder
    from digitlab.tracking.store import RunStore


def opened_store(uri: str) -> "RunStore":
    """The one way in which a store is opened to be read: dead runs are settled first, and it answers.

    Raises:
        TrackingError: it cannot be read; raised within 3 s.
    """
    from digitlab.tracking.delivery import open_answering

    settle_dead_runs()
    return open_answering(uri)


def reading_store(uri: str) -> "RunStore":
    """The same for a user's process, which then imports no MLflow: another one reads.

    Every method raises TrackingError unless it is done within 30 s.
    """
    from digitlab.tracking.delivery import bounded_store, check_answering

    settle_dead_runs()
    check_answering(uri)
    return bounded_store(uri)


def settle_dead_runs() -> None:
    """Mark and deliver runs whose process is gone: the statuses shown afterwards are true.

    While a thread of this process trains, that is left to another time.
    """
    from digitlab.api.foreground import undisturbed  # 10 ms of every command's start

    with undisturbed() as may_deliver:
        if may_deliver:
            deliver_records(mark_dead_runs())


def mark_dead_runs() -> "list[RunFolder]":
    """Mark runs whose process is gone; whatever deals with runs begins with it."""
    from digitlab.config import project
    from digitlab.tracking.leftovers import close_dead_records
    from digitlab.tracking.run_folder import all_records, wrong_clock

    if problem := wrong_clock():
        say(problem)
    return close_dead_records(all_records(project.records()), say)


def deliver_records(records: "Iterable[RunFolder]") -> None:
    from digitlab.tracking.connection.location import undeliverable
    from digitlab.tracking.delivery import Delivery

    for record in records:
        if undeliverable(record.run.tracking_uri) is None:
            Delivery(record, say).finish()


def say_unheeded() -> None:
    """MLflow's own variables that choose what knobs choose here; components that are not registered."""

    from digitlab.config.components import lookup
    from digitlab.tracking.connection.environment import UNHEEDED

    for variable, instead in UNHEEDED.items():
        if os.environ.get(variable):
            say(f"{variable} has no effect: {instead}")
    for problem in lookup.everything().problems:
        say(f"not registered: {problem}")
