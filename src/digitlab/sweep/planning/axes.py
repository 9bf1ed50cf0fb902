"""What a search chooses a knob from, as the manifest has it: {choices, values} or {low, high, log}.

Texts are values as they would be typed. Knows no sampler.
"""

import math
from typing import Any

STEPS = 1000  # into which an interval is cut where its values are listed

Axis = dict[str, Any]


def is_integer(axis: Axis) -> bool:
    """Of an interval."""
    return isinstance(axis["low"], int) and isinstance(axis["high"], int)


def chosen(axis: Axis, text: str) -> str | int | float:
    """What a sampler chose: one of the choices, which are texts to it, or a number."""
    if "choices" in axis:
        return text
    return int(text) if is_integer(axis) else float(text)


def value(axis: Axis, text: str) -> Any:
    """What a knob holds where this was chosen."""
    if "choices" in axis:
        return axis["values"][axis["choices"].index(text)]
    return chosen(axis, text)


def ends(axis: Axis) -> list[str]:
    """All choices, or both ends of an interval."""
    return list(axis["choices"]) if "choices" in axis else [str(axis["low"]), str(axis["high"])]


def texts(axis: Axis) -> list[str]:
    """What may be chosen; of an interval with more numbers than STEPS, some of them."""
    if "choices" in axis:
        return list(axis["choices"])
    low, high = axis["low"], axis["high"]
    if is_integer(axis) and high - low <= STEPS:
        return [str(each) for each in range(low, high + 1)]
    start, stop = (math.log(low), math.log(high)) if axis["log"] else (low, high)
    spaced = [start + (stop - start) * step / STEPS for step in range(STEPS + 1)]
    values = [min(max(math.exp(x) if axis["log"] else x, low), high) for x in spaced]
    return [str(round(x)) if is_integer(axis) else repr(x) for x in values]


def readable(axis: Axis, text: str) -> str:
    """A number of six digits, inside the interval."""
    if "choices" in axis or is_integer(axis):
        return text
    return repr(min(max(float(f"{float(text):.6g}"), axis["low"]), axis["high"]))


def described(axis: Axis) -> str:
    """`cnn, logistic_regression`, `0.001 to 0.1 on a log scale`."""
    if "choices" in axis:
        return ", ".join(map(str, axis["choices"]))
    return f"{axis['low']} to {axis['high']}" + (" on a log scale" if axis["log"] else "")
