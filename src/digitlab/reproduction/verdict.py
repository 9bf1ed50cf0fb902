"""Whether a repetition gave the same result as the record says, and if not what differs first.

Compares documents and nothing else; runs, reads and prints nothing.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from digitlab.reproduction.changes import Change, input_changes, listed
from digitlab.results.compare.differences import arithmetic_differences
from digitlab.runs.document import Document
from digitlab.runs.trace import Trace, to_floats

Kind = Literal["IDENTICAL", "SAME COMPUTATION, OTHER ROUNDING", "DIFFERENT", "CANNOT"]
EXIT_CODES: dict[Kind, int] = {
    "IDENTICAL": 0,
    "SAME COMPUTATION, OTHER ROUNDING": 3,
    "DIFFERENT": 4,
    "CANNOT": 5,
}
# Rounding grows: in one CNN of three, perhaps by a near tie that it turned, beyond 1e-4 by step 30. In
# the first ten steps it stayed below 1e-6 with three seeds of each model, and a learning rate 1 % off
# came above 3e-4: experiments/rounding.
JUDGED_STEPS = 10
ROUNDING = 1e-5  # relative, of a step's loss
ACCURACY_BAND = 0.005  # of 10,000 images; by the square root of their number for others


class Cannot(Exception):  # noqa: N818  (a verdict)
    """A run cannot be run again: what is missing, and what would mend it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """cause: what differs first, or what is missing. details: more sentences."""

    kind: Kind
    cause: str = ""
    details: list[str] = dataclasses.field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.kind]


def judge(recorded: Document, repeated: Document) -> Verdict:
    """Both must have ended. The numbers come first; the final accuracy alone decides nothing."""
    assert recorded.trace is not None
    assert repeated.trace is not None
    changes = input_changes(recorded, repeated)
    has_same_inputs = all(change.part == "code" for change in changes)
    first = next(trace_differences(recorded.trace, repeated.trace), None)
    if first is None and has_same_inputs:
        return Verdict(kind="IDENTICAL", details=[f"by other {code}" for code in changes])
    rounding = arithmetic_differences(recorded, repeated)
    gaps = _gaps(recorded.trace, repeated.trace)
    if first and rounding and has_same_inputs and _agree_to_rounding(recorded.trace, repeated.trace):
        details = [*rounding, *gaps]
        details += [f"differs besides, and these numbers show nothing of it: {c}" for c in changes]
        return Verdict(kind="SAME COMPUTATION, OTHER ROUNDING", cause=first, details=details)
    details = [*_weighed(changes, first, rounding), *gaps]
    if not recorded.reproducible:
        details.append("the record says itself that it went on by force over a change")
    return Verdict(kind="DIFFERENT", cause=str(changes[0]) if changes else first or "", details=details)


def _weighed(changes: Sequence[Change], first: str | None, rounding: Sequence[str]) -> Iterator[str]:
    """Every other possible cause besides the first change, and what speaks against it.

    first: where the results differ first, if they do; without changes that is named as the cause.
    """
    yield from (f"differs, too: {change}" for change in changes[1:])
    if changes and first:
        yield f"it shows first in {first}"
    if first is None:
        yield "no trace of it in the result"
    elif rounding:
        yield f"rounding differs, too, but explains no such difference: {listed(rounding)}"
    elif not changes:
        yield "configuration, code, data, split and arithmetic are the same: a promise is broken"


def _agree_to_rounding(recorded: Trace, repeated: Trace) -> bool:
    return (
        loss_gap(recorded, repeated) <= ROUNDING
        and _orders_agree(recorded, repeated)
        and accuracy_gap(recorded, repeated) <= accuracy_band(recorded)
    )


def _gaps(recorded: Trace, repeated: Trace) -> list[str]:
    """The distance of the numbers, beside the distance that rounding explains."""
    num_steps = min(JUDGED_STEPS, len(recorded.step_losses))
    before, now = (100 * to_floats(trace.test)["accuracy"] for trace in (recorded, repeated))
    return [
        f"the first {num_steps} step losses agree to {loss_gap(recorded, repeated):.0e} "
        f"(rounding: to {ROUNDING:.0e})",
        f"test accuracy is {now:.2f} %, was {before:.2f} % ({now - before:+.2f} points; "
        f"rounding: up to {100 * accuracy_band(recorded):.2f})",
    ]


def trace_differences(recorded: Trace, repeated: Trace) -> Iterator[str]:
    """In the order in which a training computes them."""
    if recorded.initial_weights != repeated.initial_weights:
        yield "the initial weights"
    if epoch := _first_other(recorded.orders, repeated.orders):
        yield f"the order of the images in epoch {epoch}"
    if step := _first_other(recorded.step_losses, repeated.step_losses):
        was, now = (dict(enumerate(trace.step_losses, 1)).get(step) for trace in (recorded, repeated))
        yield f"the loss of step {step}: {_pair(was, now)}"
    if epoch := _first_other(recorded.epochs, repeated.epochs):
        yield f"epoch {epoch}: {_metric(recorded.epochs, repeated.epochs, epoch)}"
    if recorded.weights != repeated.weights:
        yield "the final weights"
    if recorded.predictions != repeated.predictions:
        yield "the predictions of the test images"
    if recorded.test != repeated.test:
        yield "the test metrics"


def loss_gap(recorded: Trace, repeated: Trace) -> float:
    """The largest relative difference of the first JUDGED_STEPS losses.

    Infinite if the numbers of recorded losses differ: a shorter training is another one.
    """
    if len(recorded.step_losses) != len(repeated.step_losses):
        return math.inf
    before, now = (map(float.fromhex, t.step_losses[:JUDGED_STEPS]) for t in (recorded, repeated))
    return max(map(_relative, before, now), default=0.0)


def accuracy_gap(recorded: Trace, repeated: Trace) -> float:
    return abs(to_floats(recorded.test)["accuracy"] - to_floats(repeated.test)["accuracy"])


def accuracy_band(trace: Trace) -> float:
    """How far rounding may move an accuracy: measured at 10,000 images, and a count's spread."""
    return ACCURACY_BAND * math.sqrt(10_000 / max(trace.num_test_images, 1))


def _orders_agree(recorded: Trace, repeated: Trace) -> bool:
    """In the epochs of both: another rounding may stop a training early in another epoch."""
    return all(one == other for one, other in zip(recorded.orders, repeated.orders, strict=False))


def _relative(one: float, other: float) -> float:
    if one == other:
        return 0.0
    gap = abs(one - other) / max(abs(one), abs(other))
    return gap if math.isfinite(gap) else math.inf


def _first_other(one: Sequence[Any], other: Sequence[Any]) -> int | None:
    """The place, from 1, of the first difference; the shorter one differs after its end."""
    pairs = enumerate(itertools.zip_longest(one, other), start=1)
    return next((place for place, (a, b) in pairs if a != b), None)


def _pair(was: str | None, now: str | None) -> str:
    """Of hex floats: `0.12, was 0.13`."""
    texts = [f"{float.fromhex(text):.9g}" if text else "none" for text in (now, was)]
    return f"{texts[0]}, was {texts[1]}"


def _metric(
    recorded: Sequence[Mapping[str, str]], repeated: Sequence[Mapping[str, str]], epoch: int
) -> str:
    if epoch > min(len(recorded), len(repeated)):
        return f"{len(repeated)} epochs, were {len(recorded)}"
    before, now = recorded[epoch - 1], repeated[epoch - 1]
    name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
    return f"{name} is {_pair(before.get(name), now.get(name))}"
