"""What a user reads of a reproduction: what has changed since, where the data lay, the verdict."""

import dataclasses
from collections.abc import Iterator
from glob import escape
from pathlib import Path

from digitlab.config import project
from digitlab.config.data_schema import FORMS
from digitlab.reproduction.archive import Recorded
from digitlab.reproduction.changes import input_changes, promises_identity
from digitlab.reproduction.verdict import Verdict
from digitlab.results.compare.differences import arithmetic_differences
from digitlab.runs.document import Document
from digitlab.text.terminal import console, echo, echo_json, say, styled

COLOURS = {"IDENTICAL": "green", "DIFFERENT": "red", "CANNOT": "red"}


def say_what_changed(recorded: Recorded, today: Document) -> None:
    before = recorded.document
    say(f"reproducing {recorded.origin}: {before.config['model']['name']}, seed {before.seed}")
    for change in input_changes(before, today):
        say(f"  changed since: {change}")
    for difference in (*arithmetic_differences(before, today), *_other_versions(before, today)):
        say(f"  changed since: {difference}")
    if promises_identity(before, today):
        say("  same configuration, code, data and arithmetic: the result must be IDENTICAL")


def _other_versions(before: Document, today: Document) -> Iterator[str]:
    """Of packages that are not part of the arithmetic."""
    for name in {**before.versions, **today.versions}:
        was, now = before.versions.get(name), today.versions.get(name, "not installed")
        if was != today.versions.get(name) and name not in before.arithmetic:
            yield f"{name} is {now}, was {was}"


def say_where_data_lay(document: Document) -> None:
    """A record decides nothing about places on this machine; its user may."""
    data = document.config.get("data")
    root = data.get("root") if isinstance(data, dict) else None
    here = project.data_root(None)
    if isinstance(root, str) and Path(root) != here:
        say(f"  its data lay in {root}, and are looked for in {here}: data.root= names another")


def missing_data(document: Document) -> str | None:
    """Where a user's own data lay, if they are no longer there."""
    data = document.config.get("data")
    path = data.get("path") if isinstance(data, dict) and data.get("name") in FORMS else None
    if not isinstance(path, str):
        return None
    place = project.data_path(path)
    # The beginning of the names of files is a place, too (data=idx).
    is_there = place.exists() or any(place.parent.glob(f"{escape(place.name)}*"))
    return None if is_there else str(place)


def how_to_weigh(recorded: Recorded, new_run: str | None) -> str:
    """How to find out whether a difference matters. new_run: the repetition, if it is in the store."""
    over_seeds = (
        "does it matter? One pair of runs cannot say: `digitlab sweep ... seed=range(5)` before and "
        "after the change, then `digitlab compare OLD_SWEEP NEW_SWEEP`"
    )
    if recorded.is_from_file or new_run is None:
        return over_seeds
    pair = f"digitlab compare {recorded.run_id[:8]} {new_run[:8]}"
    return f"{over_seeds}; `{pair}` tests these two models on the same images"


def show_verdict(verdict: Verdict, run_id: str | None, new_run: str | None, *, as_json: bool) -> None:
    if as_json:
        values = {**dataclasses.asdict(verdict), "recorded": run_id, "repeated": new_run}
        echo_json({**values, "exit_code": verdict.exit_code})
        return
    head = styled(verdict.kind, f"bold {COLOURS.get(verdict.kind, 'yellow')}")
    console(soft_wrap=True).print(head, f": {verdict.cause}" if verdict.cause else "", sep="")
    for detail in verdict.details:
        echo(f"  {detail}")
    if new_run:
        recorded = f"recorded {run_id[:8]}, repeated" if run_id else "run"
        echo(f"  {recorded} {new_run[:8]}: digitlab show {new_run[:8]}")
