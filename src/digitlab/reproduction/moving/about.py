"""What an archive says of its run besides the record: name, times, metrics, tags of its users.

Nothing depends on it but what is shown; it may come from anybody, so it is read as data.
"""

import dataclasses
import json
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from digitlab.config.kinds import CLOSED, Integer, Number
from digitlab.errors import UsageError
from digitlab.runs.document import UNPRINTABLE, RefusedDocument
from digitlab.tracking import names
from digitlab.tracking.search.annotations import MOST_TEXT, parse_tag
from digitlab.tracking.stored_run import StoredRun

MAX_BYTES = 1_000_000
OF_SWEEP = (names.SWEEP_TAG, names.TRIAL_TAG)
Time = Annotated[Integer, Field(ge=1, lt=1 << 53)]  # ms since the epoch
Metric = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./ -]+$", max_length=250)]
Text = Annotated[str, Field(max_length=MOST_TEXT)]


@dataclass(config=CLOSED, kw_only=True, frozen=True)
class About:
    """metrics: the last value of each. tags: its users' own, its note, its place in a sweep."""

    format: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=250)]
    start_time: Time
    end_time: Time
    metrics: Annotated[dict[Metric, Number], Field(max_length=100)]
    tags: Annotated[dict[str, Text], Field(max_length=200)]


_ABOUT = TypeAdapter(About)


def describe(run: StoredRun) -> bytes:
    """Of a run that has ended."""
    about = About(
        format=1,
        name=run.name,
        start_time=run.start_time,
        end_time=run.end_time or run.start_time,
        metrics=run.metrics,
        tags={name: value for name, value in run.tags.items() if _is_handed_on(name)},
    )
    return json.dumps(dataclasses.asdict(about), indent=1, allow_nan=False).encode() + b"\n"


def parse(content: bytes) -> About:
    """Raises RefusedDocument."""
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has {len(content)} bytes, more than {MAX_BYTES}")
        about = _ABOUT.validate_python(json.loads(content))
        if strange := [name for name in about.tags if not _is_handed_on(name)]:
            raise ValueError(f"the tag {strange[0]!a} is none that is handed on")
        if UNPRINTABLE.search(about.name) or about.end_time < about.start_time:
            raise ValueError("its name or its times are none of a run")
    except (ValueError, RecursionError) as error:
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RefusedDocument([f"{names.ABOUT_FILE}: {cause}"]) from None
    return about


def without_sweep(about: About) -> About:
    """Of a run that belongs to no sweep."""
    tags = {name: value for name, value in about.tags.items() if not _is_of_sweep(name)}
    return dataclasses.replace(about, tags=tags)


def _is_of_sweep(tag: str) -> bool:
    return tag in OF_SWEEP or tag.startswith(names.SWEPT_TAG)


def _is_handed_on(tag: str) -> bool:
    if _is_of_sweep(tag) or tag == names.OWN_NOTE_TAG:
        return True
    try:
        parse_tag(f"{tag}=x")
    except UsageError:
        return False
    return True
