"""The command that brings runs of other stores into this one: import.

What it needs is imported when it is called.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digitlab.api.settling import settle_dead_runs
from digitlab.cli.options import STORE
from digitlab.errors import DataError
from digitlab.text.terminal import echo, say

if TYPE_CHECKING:
    from digitlab.reproduction.moving.importing import Imported


@click.command("import")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--verify", is_flag=True, help="Run each again, and say whether the result is the same.")
@STORE
def import_runs(files: tuple[Path, ...], verify: bool, tracking_uri: str | None) -> None:
    """Bring runs of another store into this one: archives by `digitlab export`, or a record.json.

    They come with their metrics, files, times, tags and notes, and name the run that they were. What
    was imported before is told, and not imported again. With --verify the exit code is the worst of
    `digitlab reproduce`.
    """
    from digitlab.runs.document import RefusedDocument
    from digitlab.tracking.connection.location import resolve_uri

    settle_dead_runs()
    uri, verdicts = resolve_uri(tracking_uri), [0]
    try:
        for file in files:
            for origin, imported in _imported(file, uri):
                _tell(origin, imported)
                if verify:
                    verdicts.append(_verify(imported.run_id, uri))
    except RefusedDocument as error:
        raise DataError(str(error)) from None
    sys.exit(max(verdicts))


def _imported(file: Path, uri: str) -> "Iterator[tuple[str, Imported]]":
    """Each run of a file, with the id that it had, as soon as it is here."""
    from digitlab.reproduction.archive import parse_archive, read_recorded
    from digitlab.reproduction.moving.bundle import is_bundle, read_bundle
    from digitlab.reproduction.moving.importing import import_run, import_sweep

    if not is_bundle(file):
        recorded = read_recorded(file)
        yield recorded.run_id, import_run(recorded, uri, say)
        return
    sweep, archives = read_bundle(file)
    parent = import_sweep(sweep, uri, say) if sweep else None
    for name, content in archives:
        recorded = parse_archive(content, f"{file}: {name}")
        yield recorded.run_id, import_run(recorded, uri, say, parent)


def _tell(origin: str, imported: "Imported") -> None:
    run = f"{imported.run_id[:8]} {imported.name}"
    if imported.is_new:
        echo(f"{origin[:8]} imported as {run}")
    else:
        echo(f"{origin[:8]} is here already: {run}")


def _verify(run_id: str, uri: str) -> int:
    from digitlab.reproduction.presenting import show_verdict
    from digitlab.reproduction.reproduce import Options, reproduce

    done = reproduce(run_id, uri, Options())
    assert done.verdict is not None, "without other knobs it is no variation"
    show_verdict(done.verdict, done.recorded, done.repeated, as_json=False)
    return done.verdict.exit_code


COMMANDS = (import_runs,)
