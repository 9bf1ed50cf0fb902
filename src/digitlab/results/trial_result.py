"""What came of a trial, as workers send it, tables rank it and figures draw it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self

# reused: an earlier run with the same fingerprint. PENDING: not started, or to be continued.
State = Literal["FINISHED", "FAILED", "PRUNED", "INTERRUPTED", "PENDING"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One trial's end.

    point: trials that differ in their seed only share it. swept: the knobs that vary and their values
    as typed, in the sweep's order. metrics: the last of each name, such as
    `chosen/validation_accuracy`, `test/accuracy`. history: metric name to (epoch, value) pairs.
    is_final: it would end in the same way again. refusal: why it was trained by itself, where it was to
    be trained side by side with others.
    """

    number: int
    point: int
    name: str
    state: State
    swept: dict[str, str]
    run_id: str | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    history: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    is_final: bool = False
    traceback: str | None = None  # the file that holds it
    reused: bool = False
    refusal: str = ""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, event: Mapping[str, Any]) -> Self:
        """From an event of a journal, which says more."""
        names = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in event.items() if name in names}
        if "is_final" not in values:  # in old journals
            values["is_final"] = str(event.get("error")).startswith("the training loss became")
        return cls(**values)
