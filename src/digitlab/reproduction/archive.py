"""A run as one file: everything that it takes to run it again and check the result.

A zip archive of plain files under fixed names. Reading one executes nothing and writes nothing, and
takes no more time and memory than a bounded size allows.
"""

import csv
import dataclasses
import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

from digitlab.config.knobs import text_knobs
from digitlab.errors import reason
from digitlab.models import signature as signatures
from digitlab.models.saved import CONFIG_FILE, WEIGHTS_FILE, weights_digest
from digitlab.models.signature import MODEL_FILE
from digitlab.runs import document as documents
from digitlab.runs.artifacts import read_answers
from digitlab.runs.document import Document, RefusedDocument
from digitlab.runs.trace import Trace, predictions_digest, to_floats
from digitlab.text import yaml_text
from digitlab.text.files import read_file
from digitlab.tracking.names import ABOUT_FILE, EPOCHS_FILE, PATCH_FILE, PREDICTIONS_FILE, RECORD_FILE

CHECKSUMS = "SHA256SUMS"
LOCK = "requirements.lock"
REQUIRED = (RECORD_FILE, CONFIG_FILE, WEIGHTS_FILE, EPOCHS_FILE, PREDICTIONS_FILE)
OPTIONAL = (MODEL_FILE, PATCH_FILE, LOCK, ABOUT_FILE)
RUN_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # a record that is not delivered yet has one with dashes
MAX_BYTES = 200_000_000  # of an archive, and of all its files together, unpacked
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENTRY, MAX_ENTRIES = b"PK\x01\x02", 100  # the list has ten at most; packed bytes may look like one
MAX_ROWS = 1_000_000  # of predictions
DATE = (1980, 1, 1, 0, 0, 0)  # the same run gives the same bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded run, from a file, this disk or the store. patch: what was not committed, if anything.

    run_id: in the store that it was read from, or that it was exported from. origin: to be shown.
    is_from_file: the run need not be in any store here. contents: the files of an archive, by name.
    """

    document: Document
    patch: bytes | None
    run_id: str
    origin: str
    is_from_file: bool = True
    contents: Mapping[str, bytes] = dataclasses.field(default_factory=dict, repr=False)


def packed_archive(contents: Mapping[str, bytes], run_id: str) -> bytes:
    """contents: by name; a list of checksums as `sha256sum -c` takes them is added.

    Raises:
        RefusedDocument: the archive could not be read again.
    """
    sums = "".join(
        f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents)
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = run_id.encode()
        for name, content in sorted({**contents, CHECKSUMS: sums.encode()}.items()):
            archive.writestr(zipfile.ZipInfo(name, DATE), content, zipfile.ZIP_DEFLATED)
    parse_archive(packed.getvalue(), f"run {run_id}")
    return packed.getvalue()


def read_recorded(file: Path) -> Recorded:
    """From an archive, or a bare record.json.

    Raises:
        RefusedDocument: anything in it is damaged, missing, too large or out of place.
    """
    try:
        content = read_file(file, MAX_BYTES)
    except OSError as error:
        raise RefusedDocument([f"{file}: {reason(error)}"]) from None
    is_document = content[:64].lstrip().startswith(b"{")
    return (_of_document if is_document else parse_archive)(content, str(file))


def _of_document(content: bytes, origin: str) -> Recorded:
    """Enough to run it today and judge the result; `--code recorded` may need a patch besides.

    It names no run: the start of its checksum stands for an id.
    """
    run_id = hashlib.sha256(content).hexdigest()[:32]
    document = documents.parse(content)
    files = {RECORD_FILE: content}
    return Recorded(document, patch=None, run_id=run_id, origin=origin, contents=files)


def parse_archive(content: bytes, origin: str) -> Recorded:
    """As `read_recorded`, from the content of a file."""
    try:
        contents, run_id = _unpacked(content)
    except Exception as error:  # zipfile and its decoders raise whatever damaged bytes lead to
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise RefusedDocument(
            [f"{origin} is neither an archive of a run nor a record.json: {cause}"]
        ) from None
    if missing := [name for name in (*REQUIRED, CHECKSUMS) if name not in contents]:
        raise RefusedDocument([f"{origin} lacks {', '.join(missing)}"])
    _check_sums(contents, origin)
    document = documents.parse(contents[RECORD_FILE])
    if document.trace is None or not document.trace.weights:
        raise RefusedDocument([f"{origin}: its {RECORD_FILE} has no result"])
    _check_contents(contents, document, document.trace, origin)
    return Recorded(document, contents.get(PATCH_FILE), run_id, origin, contents=contents)


def _unpacked(content: bytes) -> tuple[dict[str, bytes], str]:
    """The files by name, and the id of their run."""
    if content.count(ENTRY) > MAX_ENTRIES:
        raise ValueError("it holds too many files")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries, comment = archive.infolist(), archive.comment
        _check_entries(entries)
        contents = {info.filename: _read(archive, info) for info in entries}
    run_id = comment.decode("ascii")
    # zipfile takes whatever is left of a comment that was cut.
    if not content.endswith(len(comment).to_bytes(2, "little") + comment):
        raise ValueError("it does not end where it says")
    if not RUN_ID.fullmatch(run_id):
        raise ValueError("it names no run")
    return contents, run_id


def _check_entries(entries: Sequence[zipfile.ZipInfo]) -> None:
    names = [info.filename for info in entries]
    for info in entries:
        if info.filename not in (*REQUIRED, *OPTIONAL, CHECKSUMS):
            raise ValueError(f"it holds {ascii(info.filename)[:80]}, which no archive of a run does")
        if names.count(info.filename) > 1:
            raise ValueError(f"it holds {info.filename} more than once")
        if info.compress_type not in METHODS:
            raise ValueError(f"{info.filename} is packed in another way than by deflation")
    if (size := sum(info.file_size for info in entries)) > MAX_BYTES:
        raise ValueError(f"its files have {size:,} bytes together, more than {MAX_BYTES:,}")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        return member.read(info.file_size)  # without a number zipfile unpacks all before it counts


def _check_sums(contents: Mapping[str, bytes], origin: str) -> None:
    lines = contents[CHECKSUMS].decode("utf-8", "replace").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    damaged = [
        name
        for name, content in contents.items()
        if name != CHECKSUMS and listed.get(name) != hashlib.sha256(content).hexdigest()
    ]
    if damaged:
        raise RefusedDocument(
            [f"{origin}: {name} is damaged (its SHA-256 is another)" for name in damaged]
        )


def _check_contents(
    contents: Mapping[str, bytes], document: Document, trace: Trace, origin: str
) -> None:
    """Check each file against the document. The checksums prove nothing: the archive brings its own."""
    checks: list[tuple[str, str, Callable[[bytes], bool]]] = [
        (CONFIG_FILE, "configuration", lambda content: _is_config(content, document.config)),
        (WEIGHTS_FILE, "trace", lambda content: _are_weights(content, trace)),
        (PREDICTIONS_FILE, "trace", lambda content: _are_predictions(content, document, trace)),
        (EPOCHS_FILE, "trace", lambda content: _are_metrics(content, trace)),
    ]
    if MODEL_FILE in contents:
        checks.append((MODEL_FILE, "data", lambda content: _is_signature(content, document)))
    for name, part, belongs in checks:
        try:
            is_sound = belongs(contents[name])
        except Exception:  # the readers raise whatever bytes of another kind lead to
            is_sound = False
        if not is_sound:
            raise RefusedDocument(
                [f"{origin}: {name} is not what the {part} in its {RECORD_FILE} says"]
            )


def _is_config(content: bytes, config: Mapping[str, Any]) -> bool:
    values = yaml_text.load(content.decode(), text_knobs())  # an earlier digitlab quoted not all text
    return bool(values == config)


def _are_weights(content: bytes, trace: Trace) -> bool:
    return weights_digest(safetensors.torch.load(content)) == trace.weights


def _is_signature(content: bytes, document: Document) -> bool:
    signature = signatures.parse(content)
    shape = list(signature.image_shape)
    return shape == document.image_shape and signature.num_classes == document.num_classes


def _are_predictions(content: bytes, document: Document, trace: Trace) -> bool:
    import pyarrow.parquet

    num_rows = pyarrow.parquet.read_metadata(io.BytesIO(content)).num_rows
    if num_rows != trace.num_test_images or num_rows > MAX_ROWS:
        return False
    read = read_answers(content).predictions
    are_classes = read.dtype.kind == "i" and read.min() >= 0 and read.max() < document.num_classes
    return are_classes and predictions_digest(read) == trace.predictions


def _are_metrics(content: bytes, trace: Trace) -> bool:
    rows = csv.DictReader(io.StringIO(content.decode()))
    return all(
        {name: float(row[name]) for name in epoch} == to_floats(epoch)
        for row, epoch in zip(rows, trace.epochs, strict=True)
    )
