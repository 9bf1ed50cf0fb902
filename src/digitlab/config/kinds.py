"""Kinds of values that knobs have: each with its range, and strict. Knows no knob."""

from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, ConfigDict, Field, Strict
from pydantic.dataclasses import dataclass

CLOSED = ConfigDict(extra="forbid")

Integer = Annotated[int, Strict()]  # neither 5.0 nor true nor "5"
Number = Annotated[float, Strict(), AllowInfNan(False)]
Switch = Annotated[bool, Strict()]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Count = Annotated[Integer, Field(ge=1, le=1_000_000)]
Width = Annotated[Integer, Field(ge=1, le=4096)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]
PositiveFloat = Annotated[Number, Field(gt=0)]
NonNegativeFloat = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]  # [0, 1): dropout, momentum, averaging
PositiveFraction = Annotated[Number, Field(gt=0, le=1)]
Metric = Literal["validation/loss", "validation/accuracy"]


def about(text: str) -> Any:
    return Field(description=text)


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class OwnConfig:
    """Of a component that a user brings, which adds its knobs (see components/)."""

    name: str
