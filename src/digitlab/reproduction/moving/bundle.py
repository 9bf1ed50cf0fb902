"""Several runs in one file: a zip of archives, each as it would be alone, and their sweep."""

import contextlib
import dataclasses
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from digitlab.config.kinds import CLOSED
from digitlab.reproduction.archive import DATE, RUN_ID
from digitlab.reproduction.archive import MAX_BYTES as MOST_OF_ONE
from digitlab.runs.document import UNPRINTABLE, RefusedDocument
from digitlab.text.files import replacing
from digitlab.tracking.stored_run import StoredRun

SWEEP_FILE = "sweep.json"
SUFFIX = ".zip"
MAX_RUNS = 10_000


@dataclass(config=CLOSED, kw_only=True, frozen=True)
class Sweep:
    """The sweep that the runs of a bundle are trials of."""

    format: Literal[1]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=64)]
    name: Annotated[str, Field(min_length=1, max_length=250)]
    study: Annotated[str, Field(min_length=1, max_length=250)]
    command: Annotated[str, Field(max_length=6000)]


_SWEEP = TypeAdapter(Sweep)


def write_bundle(file: Path, archives: Iterable[tuple[StoredRun, bytes]], sweep: Sweep | None) -> int:
    """Returns how many runs were written; one after another, whatever they take together."""
    count = 0
    with replacing(file) as opened, zipfile.ZipFile(opened, "w", zipfile.ZIP_STORED) as bundle:
        if sweep:
            about = json.dumps(dataclasses.asdict(sweep), indent=1)
            bundle.writestr(zipfile.ZipInfo(SWEEP_FILE, DATE), about)
        for run, archive in archives:
            bundle.writestr(zipfile.ZipInfo(f"{run.run_id}{SUFFIX}", DATE), archive)
            count += 1
    return count


def is_bundle(file: Path) -> bool:
    """Whether it is a zip that holds archives."""
    try:
        with zipfile.ZipFile(file) as bundle:
            return any(name.endswith(SUFFIX) for name in bundle.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def read_bundle(file: Path) -> tuple[Sweep | None, Iterator[tuple[str, bytes]]]:
    """The sweep, and each archive with its name, unpacked when it is asked for.

    Raises:
        RefusedDocument: it holds anything else, or too much of it.
    """
    with _plainly(file), zipfile.ZipFile(file) as bundle:
        entries = bundle.infolist()
        if len(entries) > MAX_RUNS + 1:
            raise ValueError(f"it holds {len(entries)} files, more than {MAX_RUNS} runs")
        for entry in entries:
            _check(entry)
        sweep = None
        if SWEEP_FILE in bundle.namelist():
            sweep = _SWEEP.validate_python(json.loads(bundle.read(SWEEP_FILE)))
            if UNPRINTABLE.search(sweep.name + sweep.study):
                raise ValueError(f"{SWEEP_FILE} names no sweep")
    return sweep, _archives(file, [entry.filename for entry in entries if entry.filename != SWEEP_FILE])


def _archives(file: Path, entries: list[str]) -> Iterator[tuple[str, bytes]]:
    with _plainly(file), zipfile.ZipFile(file) as bundle:
        for name in entries:
            yield name, bundle.read(name)


@contextlib.contextmanager
def _plainly(file: Path) -> Iterator[None]:
    """Whatever damaged bytes lead to becomes a RefusedDocument."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RefusedDocument([f"{file}: {str(error).splitlines()[0]}"]) from None


def _check(entry: zipfile.ZipInfo) -> None:
    is_run = entry.filename.endswith(SUFFIX) and RUN_ID.fullmatch(entry.filename.removesuffix(SUFFIX))
    if not is_run and entry.filename != SWEEP_FILE:
        raise ValueError(f"it holds {ascii(entry.filename)[:80]}, which is no run")
    limit = MOST_OF_ONE if is_run else 100_000
    if entry.file_size > limit or entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{entry.filename} is packed, or has more than {limit:,} bytes")
