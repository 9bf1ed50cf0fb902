"""What differs between runs, and not only in their knobs: code, data, versions, machine.

Reads each run's record.json as data. Knows no statistics and prints nothing.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from digitlab.config.checking import as_param, flatten
from digitlab.config.fingerprint import MOVED, WITHOUT_EFFECT, decides_numbers, were_moved
from digitlab.errors import UsageError
from digitlab.runs import document as documents
from digitlab.runs.document import Document
from digitlab.tracking.names import RECORD_FILE
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun
from digitlab.training.arithmetic import PRODUCT, PRODUCT_BEFORE

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
    rows = []
    for section, keys in SECTIONS.items():
        names = dict.fromkeys(
            n for one in flat for n in one for k in keys if n == k or n.startswith(f"{k}.")
        )
        for name in names:
            values = tuple(one.get(name, ABSENT) for one in flat)
            shown = name.removeprefix("config.") if section == "knobs" else name
            if len(set(values)) > 1 and shown not in WITHOUT_EFFECT:
                rows.append(Difference(section, shown, values))
    return rows + _source_files(flat)


def read_document(store: RunStore, run: StoredRun) -> Document:
    """Raises UsageError if the run has none that can be read."""
    try:
        return documents.parse(store.content(run, RECORD_FILE))
    except documents.RefusedDocument as error:
        raise UsageError(f"{RECORD_FILE} of run {run.short_id}: {error}") from None


def _flat(document: Document) -> dict[str, str]:
    values: dict[str, Any] = {
        field.name: getattr(document, field.name)
        for field in dataclasses.fields(document)
        if field.name not in ("trace", "code", "components")
    }
    whole = dataclasses.asdict(document)
    values |= {name: whole[name] for name in ("code", "components")}
    return {name: _shown(as_param(value)) for name, value in flatten(values).items()}


def _source_files(flat: Sequence[dict[str, str]]) -> list[Difference]:
    """One row for all source files: the names of files that decide numbers, and how many others."""
    prefix = "code.files."
    first, *others = (
        {name.removeprefix(prefix): digest for name, digest in one.items() if name.startswith(prefix)}
        for one in flat
    )
    if all(files == first for files in others):
        return []
    texts = (MOVED if were_moved(first, files) else _listed(first, files) for files in others)
    return [Difference("code", "source files that differ", ("", *texts))]


def _listed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    deciding = [name for name in changed if decides_numbers(name)]
    others = len(changed) - len(deciding)
    counted = [f"{others} that decide no number"] if others else []
    return ", ".join([*deciding, *counted]) or "as the first"


def _shown(text: str) -> str:
    is_digest = len(text) in (40, 64) and set(text) <= set("0123456789abcdef")
    return text[:DIGEST_LENGTH] if is_digest else text


def arithmetic_differences(recorded: Document, repeated: Document) -> list[str]:
    """What is known to change rounding: `threads is 2, was 1`."""
    unnamed = {PRODUCT: PRODUCT_BEFORE}
    before, now = unnamed | recorded.arithmetic, unnamed | repeated.arithmetic
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    changes = [f"{name} is {_or_unset(now, name)}, was {_or_unset(before, name)}" for name in names]
    if not changes and recorded.canary != repeated.canary:
        changes = ["the canary digest is another, though nothing known to change rounding differs"]
    return changes


def _or_unset(values: Mapping[str, str], name: str) -> str:
    return values.get(name) or "unset"
