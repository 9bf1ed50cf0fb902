"""A run as one file: everything that running it again and checking the result needs.

A zip archive of plain files under fixed names. Reading one executes nothing and writes nothing.
"""

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from digitlab import document as documents
from digitlab.document import Document, RefusedDocument
from digitlab.record import write_atomically

CHECKSUMS = "SHA256SUMS"
LOCK = "requirements.lock"
REQUIRED = (documents.FILE, "config.yaml", "weights.safetensors", "metrics.csv", "predictions.parquet")
OPTIONAL = (documents.PATCH_FILE, LOCK)
MAX_BYTES = 200_000_000  # of one file, unpacked
DATE = (1980, 1, 1, 0, 0, 0)  # the same run gives the same bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded run, wherever it was read from. patch: what was not committed, None without it.

    run_id: in the store that it was read from, or that it was exported from. origin: for people.
    """

    document: Document
    patch: str | None
    run_id: str
    origin: str


def write_archive(file: Path, contents: Mapping[str, bytes], run_id: str) -> None:
    """contents: by name; atomically, with a list of checksums that `sha256sum -c` understands."""
    sums = "".join(
        f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents)
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = run_id.encode()
        for name, content in sorted({**contents, CHECKSUMS: sums.encode()}.items()):
            archive.writestr(zipfile.ZipInfo(name, DATE), content, zipfile.ZIP_DEFLATED)
    write_atomically(file, packed.getvalue())


def read_archive(file: Path) -> Recorded:
    """Raises RefusedDocument if anything in it is damaged, missing, too large or out of place."""
    try:
        with zipfile.ZipFile(file) as archive:
            contents = {info.filename: _read(archive, info) for info in archive.infolist()}
            run_id = archive.comment.decode("ascii")
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError) as error:
        raise RefusedDocument(
            [f"{file} is neither an archive of a run nor a record.json: {error}"]
        ) from None
    if missing := [name for name in (*REQUIRED, CHECKSUMS) if name not in contents]:
        raise RefusedDocument([f"{file} lacks {', '.join(missing)}"])
    _check_sums(file, contents)
    if not (run_id.isalnum() and len(run_id) <= 32):
        raise RefusedDocument([f"{file} names no run"])
    patch = contents.get(documents.PATCH_FILE)
    return Recorded(
        document=documents.parse(contents[documents.FILE]),
        patch=patch.decode() if patch is not None else None,
        run_id=run_id,
        origin=str(file),
    )


def read_document_file(file: Path) -> Recorded:
    """A bare record.json: all that running it today and judging the result takes.

    What was not committed, which `--code recorded` may need, is not in it. It names no run: the start
    of its checksum stands for one.

    Raises:
        RefusedDocument: see document.parse.
    """
    with file.open("rb") as opened:
        content = opened.read(documents.MAX_BYTES + 1)
    return Recorded(
        document=documents.parse(content),
        patch=None,
        run_id=hashlib.sha256(content).hexdigest()[:32],
        origin=str(file),
    )


def is_document_file(file: Path) -> bool:
    """Whether it begins as JSON does, and not as an archive."""
    with file.open("rb") as opened:
        return opened.read(64).lstrip().startswith(b"{")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.filename not in (*REQUIRED, *OPTIONAL, CHECKSUMS):
        raise ValueError(f"it holds {ascii(info.filename)[:80]}, which no archive of a run does")
    if info.file_size > MAX_BYTES:
        raise ValueError(f"{info.filename} has {info.file_size} bytes, more than {MAX_BYTES}")
    with archive.open(info) as member:
        content = member.read(MAX_BYTES + 1)
    if len(content) != info.file_size:
        raise ValueError(f"{info.filename} has another size than it says")
    return content


def _check_sums(file: Path, contents: Mapping[str, bytes]) -> None:
    listed = {
        name: digest
        for digest, _, name in (
            line.partition("  ") for line in contents[CHECKSUMS].decode("utf-8", "replace").splitlines()
        )
    }
    damaged = [
        name
        for name, content in contents.items()
        if name != CHECKSUMS and listed.get(name) != hashlib.sha256(content).hexdigest()
    ]
    if damaged:
        raise RefusedDocument(
            [f"{file}: {name} is damaged (its SHA-256 is another)" for name in damaged]
        )
