"""Records read from a file, this disk or the store; and exported as one file. Runs nothing."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from digitlab.config import project
from digitlab.config.checking import set_leaf
from digitlab.config.given_config import PLACES
from digitlab.config.knobs import text_knobs
from digitlab.errors import UsageError
from digitlab.models.saved import CONFIG_FILE
from digitlab.reproduction.archive import (
    LOCK,
    OPTIONAL,
    REQUIRED,
    Recorded,
    packed_archive,
    read_recorded,
)
from digitlab.reproduction.moving.about import describe
from digitlab.runs import document as documents
from digitlab.runs.document import RefusedDocument
from digitlab.runs.provenance import CHECKOUT
from digitlab.text import yaml_text
from digitlab.text.files import is_file_of_some_kind, write_atomically
from digitlab.text.terminal import printable
from digitlab.tracking.delivery import bounded_store, check_answering, open_store
from digitlab.tracking.names import ABOUT_FILE, CONFIG_TAG, PATCH_FILE, RECORD_FILE
from digitlab.tracking.run_folder import RunFolder
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun, check_prefix, undelivered


def read(reference: str, uri: str) -> Recorded:
    """From the file or the run folder of that name if there is one, else from the tracking store.

    Raises:
        RefusedDocument: there is no document, or one that is not to be trusted.
    """
    file = Path(reference)
    if is_file_of_some_kind(file):
        return read_recorded(file)
    if len(file.parts) > 1 or file.suffix in (".json", ".zip"):
        raise UsageError(f"there is no file {reference}")
    files = _files_of(reference, uri, (RECORD_FILE, PATCH_FILE), bounded_store)
    if RECORD_FILE not in files.contents:
        raise RefusedDocument([f"run {reference} has no {RECORD_FILE}: an older digitlab made it"])
    document = documents.parse(files.contents[RECORD_FILE])
    if files.run.delivered and files.run.tags.get(CONFIG_TAG) != document.config_sha256:
        raise RefusedDocument(["its configuration is not the one that the run was tagged with"])
    return Recorded(
        document=document,
        patch=files.contents.get(PATCH_FILE),
        run_id=files.run_id,
        origin=f"run {files.run_id[:8]}",
        is_from_file=False,
    )


def export(reference: str, uri: str, file: Path) -> None:
    """Write one archive that another clone on another machine can reproduce."""
    write_atomically(file, archive_of(reference, uri))


def archive_of(reference: str, uri: str) -> bytes:
    """A finished run as an archive. Raises RefusedDocument: it has not finished."""
    files = _files_of(reference, uri, (*REQUIRED, *OPTIONAL))
    kept = dict(files.contents)
    if missing := [name for name in REQUIRED if name not in kept]:
        raise RefusedDocument(
            [f"run {reference} has no {missing[0]}: only a finished run can be exported"]
        )
    documents.parse(kept[RECORD_FILE])
    if CHECKOUT is not None and (lock := CHECKOUT / LOCK).exists():
        kept[LOCK] = lock.read_bytes()
    kept[ABOUT_FILE] = describe(files.run)
    return packed_archive(kept, files.run_id)


def export_config(reference: str, uri: str, file: Path, *, about: str = "") -> None:
    """Write a run's configuration alone, as YAML: no places of this machine, and no trace.

    about: what the run is, for people.

    Raises:
        UsageError: the run has left no configuration.
    """
    content = _files_of(reference, uri, (CONFIG_FILE,)).contents.get(CONFIG_FILE)
    if content is None:
        raise UsageError(f"run {reference} has left no {CONFIG_FILE}")
    values = yaml_text.load(content.decode(), text_knobs())
    for place in PLACES:
        set_leaf(values, place, None)
    said = " ".join(printable(about).split())  # names may come from a store that others write to
    head = (
        f"# The configuration of run {reference}{f', {said}' if said else ''}\n"
        "#   digitlab reproduce FILE              runs it; there is no trace in it to judge by\n"
        "#   digitlab train --config FILE seed=1  the same with other knobs\n"
    )
    write_atomically(file, head + yaml_text.dump(values))


@dataclasses.dataclass(frozen=True, slots=True)
class _Files:
    """A run, and artifacts of it. run_id: as it was asked for, or the whole id in the store."""

    run_id: str
    contents: Mapping[str, bytes]
    run: StoredRun


def _files_of(
    reference: str,
    uri: str,
    artifacts: Sequence[str],
    opened: Callable[[str], RunStore] = open_store,
) -> _Files:
    """Those of the artifacts that the run has.

    Raises:
        TrackingError: the store does not answer.
        RefusedDocument: the document is too large.
    """
    if record := RunFolder.named(project.records(), reference):
        return _Files(reference, record.contents(artifacts), undelivered(record))
    check_prefix(reference)
    check_answering(uri)
    store = opened(uri)
    run = store.find(reference)
    if (size := dict(store.artifacts(run)).get(RECORD_FILE, 0)) > documents.MAX_BYTES:
        raise RefusedDocument([f"{RECORD_FILE} has {size} bytes, more than {documents.MAX_BYTES}"])
    return _Files(run.run_id, store.contents(run, artifacts), run)
