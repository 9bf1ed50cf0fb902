"""What differs between runs, and not only in their knobs: code, data, versions, machine.

Reads each run's record.json as data. Knows no statistics and prints nothing.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digitlab import document as documents
from digitlab.checking import as_param, flatten
from digitlab.document import Document
from digitlab.errors import UsageError
from digitlab.fingerprint import WITHOUT_EFFECT, decides_numbers
from digitlab.tracking.runs import StoredRun
from digitlab.tracking.store import RunStore

ABSENT = "-"
# Section title to the keys of a document that it shows; a key that is a group stands for all in it.
SECTIONS = {
    "knobs": ("config",),
    "code": ("code.version", "code.commit", "code.dirty", "code.patch"),
    "data": ("data",),
    "arithmetic": ("device", "threads", "arithmetic"),
    "versions": ("versions",),
    "machine": ("machine",),
}
DIGEST_LENGTH = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """values: one for each run, in their order; ABSENT where a run has none."""

    section: str
    name: str
    values: tuple[str, ...]


def differences(store: RunStore, runs: Sequence[StoredRun]) -> list[Difference]:
    """Everything recorded that is not the same in all of the runs, and not without effect.

    Raises:
        UsageError: a run has no record.json, or one that is damaged.
    """
    flat = [_flat(read_document(store, run)) for run in runs]
    found = []
    for section, keys in SECTIONS.items():
        names = dict.fromkeys(
            n for one in flat for n in one for k in keys if n == k or n.startswith(f"{k}.")
        )
        for name in names:
            values = tuple(one.get(name, ABSENT) for one in flat)
            shown = name.removeprefix("config.") if section == "knobs" else name
            if len(set(values)) > 1 and shown not in WITHOUT_EFFECT:
                found.append(Difference(section, shown, values))
    return found + _source_files(flat)


def read_document(store: RunStore, run: StoredRun) -> Document:
    """Raises UsageError if the run has none that can be read."""
    if documents.FILE not in {path for path, _ in store.artifacts(run)}:
        raise UsageError(f"run {run.short_id} is {run.status}: it has left no {documents.FILE}")
    with tempfile.TemporaryDirectory() as scratch:
        content = store.download(run, documents.FILE, Path(scratch)).read_bytes()
    try:
        return documents.parse(content)
    except documents.RefusedDocument as error:
        raise UsageError(f"{documents.FILE} of run {run.short_id}: {error}") from None


def _flat(document: Document) -> dict[str, str]:
    values: dict[str, Any] = {
        field.name: getattr(document, field.name)
        for field in dataclasses.fields(document)
        if field.name not in ("trace", "code")
    }
    values["code"] = dataclasses.asdict(document.code)
    return {name: _shown(as_param(value)) for name, value in flatten(values).items()}


def _source_files(flat: Sequence[dict[str, str]]) -> list[Difference]:
    """One row for all source files: the names of those that decide numbers, the count of the others."""
    prefix = "code.files."
    names = sorted({name for one in flat for name in one if name.startswith(prefix)})
    first = flat[0]
    changed = [
        [n.removeprefix(prefix) for n in names if one.get(n, ABSENT) != first.get(n, ABSENT)]
        for one in flat
    ]
    if not any(changed):
        return []
    texts = map(_listed, changed[1:])
    return [Difference("code", "source files that differ", ("", *texts))]


def _listed(files: Sequence[str]) -> str:
    deciding = [name for name in files if decides_numbers(name)]
    others = len(files) - len(deciding)
    counted = [f"{others} that decide no number"] if others else []
    return ", ".join([*deciding, *counted]) or "as the first"


def _shown(text: str) -> str:
    is_digest = len(text) in (40, 64) and set(text) <= set("0123456789abcdef")
    return text[:DIGEST_LENGTH] if is_digest else text
