"""What a user says of a recorded run: tags of their own, and a note."""

import re

from digitlab.errors import UsageError
from digitlab.tracking import names
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun

# What digitlab and MLflow write, and read again.
RESERVED = ("digitlab.", "mlflow.", names.SWEPT_TAG, "best.")
RESERVED_NAMES = (names.SWEEP_TAG, names.TRIAL_TAG)
TAG_NAME = re.compile(r"[\w./ -]{1,250}")
MOST_TEXT = 5000  # characters: with digitlab's own words a description stays below MLflow's 8,000


def parse_tag(text: str) -> tuple[str, str]:
    """Name and value of `owner=me`; an empty value removes the tag. Raises UsageError."""
    name, _, value = text.partition("=")
    if not TAG_NAME.fullmatch(name):
        raise UsageError(f"a tag's name is 1 to 250 letters, digits, spaces and ._/-, got {name!r}")
    if name.startswith(RESERVED) or name in RESERVED_NAMES:
        raise UsageError(
            f"the tag {name} is digitlab's own, and says what a run is: choose another name"
        )
    _check_length(value)
    return name, value


def write_note(store: RunStore, run: StoredRun, text: str) -> None:
    """At the head of the run's description, in place of an earlier note. Raises UsageError."""
    _check_length(text)
    earlier = run.tags.get(names.OWN_NOTE_TAG, "")
    generated = run.tags.get(names.NOTE_TAG, "").removeprefix(earlier).lstrip("\n")
    store.annotate(run, names.OWN_NOTE_TAG, text)
    store.annotate(run, names.NOTE_TAG, "\n\n".join(filter(None, [text, generated])))


def _check_length(text: str) -> None:
    if len(text) > MOST_TEXT:
        raise UsageError(f"at most {MOST_TEXT} characters can be kept, got {len(text)}")
