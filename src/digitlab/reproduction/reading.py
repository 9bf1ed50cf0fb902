"""Records read back, from a file, this disk or the store; and written as one file. Runs nothing."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from digitlab.config import project
from digitlab.errors import UsageError
from digitlab.reproduction.archive import (
    LOCK,
    OPTIONAL,
    REQUIRED,
    Recorded,
    read_recorded,
    write_archive,
)
from digitlab.runs import document as documents
from digitlab.runs.document import RefusedDocument
from digitlab.runs.provenance import CHECKOUT
from digitlab.text.files import is_file_of_some_kind
from digitlab.tracking.delivery import open_store
from digitlab.tracking.names import CONFIG_TAG, PATCH_FILE, RECORD_FILE
from digitlab.tracking.run_folder import RunFolder
from digitlab.tracking.stored_run import check_prefix


def read(wanted: str, uri: str) -> Recorded:
    """From a file or a record on this disk if there is one, else from the tracking store.

    Raises:
        RefusedDocument: there is no document, or one that is not to be trusted.
    """
    file = Path(wanted)
    if is_file_of_some_kind(file):
        return read_recorded(file)
    if len(file.parts) > 1 or file.suffix in (".json", ".zip"):
        raise UsageError(f"there is no file {wanted}")
    with tempfile.TemporaryDirectory() as scratch:
        run_id, folder = _files_of(wanted, uri, Path(scratch), (RECORD_FILE, PATCH_FILE))
        if not (folder / RECORD_FILE).exists():
            raise RefusedDocument([f"run {wanted} has no {RECORD_FILE}: an older digitlab made it"])
        document = documents.parse((folder / RECORD_FILE).read_bytes())
        patch = folder / PATCH_FILE
        return Recorded(
            document=document,
            patch=patch.read_bytes() if patch.exists() else None,
            run_id=run_id,
            origin=f"run {run_id[:8]}",
        )


def check_tags(recorded: Recorded, uri: str) -> None:
    """Raises RefusedDocument if the run's tags, which its store keeps apart, name another document."""
    if Path(recorded.origin).is_file() or (project.records() / recorded.run_id).exists():
        return
    told = open_store(uri).find(recorded.run_id).tags.get(CONFIG_TAG)
    if told != recorded.document.config_sha256:
        raise RefusedDocument(["its configuration is not the one that the run was tagged with"])


def export(wanted: str, uri: str, file: Path) -> None:
    """Write one archive that another clone on another machine can reproduce."""
    with tempfile.TemporaryDirectory() as scratch:
        run_id, folder = _files_of(wanted, uri, Path(scratch), (*REQUIRED, *OPTIONAL))
        contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    kept = {name: content for name, content in contents.items() if name in (*REQUIRED, *OPTIONAL)}
    if missing := [name for name in REQUIRED if name not in kept]:
        raise RefusedDocument(
            [f"run {wanted} has no {name}: only a finished run can be exported" for name in missing[:1]]
        )
    documents.parse(kept[RECORD_FILE])
    lock = CHECKOUT / LOCK
    if lock.exists():
        kept[LOCK] = lock.read_bytes()
    write_archive(file, kept, run_id)


def _files_of(wanted: str, uri: str, scratch: Path, names: Sequence[str]) -> tuple[str, Path]:
    """The run's id, and a folder with those of the artifacts that it has.

    Raises:
        RefusedDocument: the document is too large, or another than the run was made with.
    """
    if record := RunFolder.named(project.records(), wanted):
        return wanted, record.artifacts
    check_prefix(wanted)
    store = open_store(uri)
    run = store.find(wanted)
    there = dict(store.artifacts(run))
    if (size := there.get(RECORD_FILE, 0)) > documents.MAX_BYTES:
        raise RefusedDocument([f"{RECORD_FILE} has {size} bytes, more than {documents.MAX_BYTES}"])
    for name in names:
        if name in there:
            store.download(run, name, scratch)
    return run.run_id, scratch
