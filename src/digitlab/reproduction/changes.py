"""What decides a run's result and has changed since it was recorded. Compares documents, no results."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

from digitlab.config.checking import as_param
from digitlab.config.fingerprint import WITHOUT_EFFECT, differing_source
from digitlab.runs.document import Document, differing_knobs

OF_ARITHMETIC = ("threads", "arithmetic")  # knobs that decide rounding and nothing else
MAX_NAMED = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """items: the knobs with their values, the files, or a sentence."""

    part: Literal["configuration", "code", "data", "split"]
    items: Sequence[str]

    def __str__(self) -> str:
        return f"{self.part}: {listed(self.items)}"


def input_changes(recorded: Document, repeated: Document) -> list[Change]:
    """Of configuration, code, data and split, in this order."""
    before, now = recorded.data, repeated.data
    data = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    own = list(_component_changes(recorded, repeated))
    is_split = "validation_indices" in data
    changes = [
        Change("configuration", _configuration_changes(recorded, repeated)),
        Change("code", [*differing_source(recorded.code.files, repeated.code.files), *own]),
        Change("data", [name for name in data if name != "validation_indices"]),
        Change("split", ["other training images are used for validation"] if is_split else []),
    ]
    return [change for change in changes if change.items]


def _configuration_changes(recorded: Document, repeated: Document) -> list[str]:
    return [
        f"{path} is {as_param(now)}, was {as_param(before)}"
        for path, (before, now) in differing_knobs(recorded.config, repeated.config).items()
        if path not in (*WITHOUT_EFFECT, *OF_ARITHMETIC)
    ]


def _component_changes(recorded: Document, repeated: Document) -> Iterator[str]:
    """Files of the user's own components that differ, or are on one side only."""
    for group in sorted({*recorded.components, *repeated.components}):
        sources = [document.components.get(group) for document in (recorded, repeated)]
        before, now = (source.files if source else {} for source in sources)
        name = next(source.name for source in sources if source)
        for file in sorted({*before, *now}):
            if before.get(file) != now.get(file):
                yield f"{file} (of {group}={name})"


def promises_identity(recorded: Document, repeated: Document) -> bool:
    """Whether the result must have the same bits: same inputs, and the same arithmetic in a test step.

    The number of threads is compared apart: the test step is too small for many of them to differ.
    """
    return (
        not input_changes(recorded, repeated)
        and recorded.canary == repeated.canary
        and recorded.threads == repeated.threads
        and recorded.device == repeated.device
        and recorded.reproducible
    )


def listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - MAX_NAMED} more" if len(texts) > MAX_NAMED else ""
    return ", ".join(texts[:MAX_NAMED]) + more
