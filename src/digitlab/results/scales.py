"""Where values stand on an axis: numbers by size or by ratio, text in order, gaps and outliers apart.

Knows nothing of curves and no library that draws.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from digitlab.config.kinds import Metric
from digitlab.results.summary import Summary, titles
from digitlab.results.tables import shortened
from digitlab.tracking.names import VALIDATION_ACCURACY, VALIDATION_LOSS

GAP = "(absent)"  # the value of a knob that a trial does not have
GAP_HEIGHT = 0.15
MAX_TICKS = 12
# Names that matplotlib and plotly share. The best is darkest: the highest accuracy, the lowest loss.
COLOUR_SCALES: dict[Metric, str] = {VALIDATION_ACCURACY: "viridis_r", VALIDATION_LOSS: "viridis"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Where values stand on an axis from 0 to 1, in their order. log: numbers, spaced by ratio."""

    places: list[float]
    ticks: list[tuple[float, str]]
    is_text: bool
    log: bool


def titled_scales(summary: Summary) -> list[tuple[str, Scale]]:
    """A titled axis for each knob that varies among the ranked points, then the metric's.

    The best point comes last, so that it is drawn on top. Empty if no point is ranked.
    """
    points = summary.ranked[::-1]
    if not points:
        return []
    knobs = varying_among([point.knobs for point in points], summary.knobs)
    scales = [knob_scale([point.knobs.get(knob, GAP) for point in points]) for knob in knobs]
    scales.append(metric_scale([point.validation.mean for point in points], summary.metric))
    names = [shortened(title, 24) for title in [*titles(knobs), summary.metric]]
    return [(n + (" (log)" if s.log else ""), s) for n, s in zip(names, scales, strict=True)]


def varying_among(rows: Sequence[Mapping[str, str]], knobs: Sequence[str]) -> list[str]:
    """The knobs that take several values in these rows; a gap is one too."""
    return [knob for knob in knobs if len({row.get(knob, GAP) for row in rows}) > 1]


def knob_scale(values: Sequence[str]) -> Scale:
    """Numbers by size, text by first appearance; a gap stands at the foot, apart."""
    present = [value for value in dict.fromkeys(values) if value != GAP]
    numbers = [number for value in present if (number := as_number(value)) is not None]
    is_text = len(numbers) < len(present)
    scale = number_scale([float(n) for n in range(len(present))] if is_text else numbers)
    ticks = list(zip(scale.places, present, strict=True))
    if not is_text and len(present) > MAX_TICKS:
        ticks = scale.ticks
    foot = GAP_HEIGHT if GAP in values else 0.0
    place = {v: foot + (1 - foot) * p for v, p in zip(present, scale.places, strict=True)} | {GAP: 0.0}
    ticks = [(foot + (1 - foot) * height, label) for height, label in ticks] + [(0.0, GAP)] * bool(foot)
    ticks = [(height, shortened(label, 18)) for height, label in _apart(ticks)]
    return Scale(places=[place[v] for v in values], ticks=ticks, is_text=is_text, log=scale.log)


def number_scale(numbers: Sequence[float]) -> Scale:
    """With six even ticks; by ratio over two decades or more, and where one ratio separates all."""
    log = grows_by_ratio(sorted(set(numbers)))
    heights = [math.log10(number) if log else number for number in numbers]
    low, span = min(heights), max(heights) - min(heights)
    places = [(height - low) / span if span else 0.5 for height in heights]
    marks = [mark / 5 for mark in range(6)] if span else [0.5]
    texts = [f"{10 ** (low + span * mark) if log else low + span * mark:.4g}" for mark in marks]
    return Scale(places=places, ticks=list(zip(marks, texts, strict=True)), is_text=False, log=log)


def metric_scale(values: Sequence[float], metric: Metric) -> Scale:
    """One diverged trial must not press all others together: outliers stand at the worst end.

    An outlier is worse than Tukey's fence, 1.5 interquartile ranges beyond the quartile.
    """
    lower, upper = np.quantile(values, [0.25, 0.75])
    fence = 1.5 * (upper - lower) or math.inf
    is_accuracy = metric == VALIDATION_ACCURACY
    held = np.maximum(values, lower - fence) if is_accuracy else np.minimum(values, upper + fence)
    scale = number_scale(held.tolist())
    if held.tolist() == list(values):
        return scale
    end, sign = (0, "≤") if is_accuracy else (-1, "≥")
    ticks = list(scale.ticks)
    ticks[end] = (ticks[end][0], f"{sign} {ticks[end][1]}")
    return replace(scale, ticks=ticks)


def grows_by_ratio(numbers: Sequence[float]) -> bool:
    """Two decades or more with half the numbers in the lowest quarter, or like 16, 32, 64."""
    if numbers[0] <= 0 or numbers[-1] / numbers[0] < 4:
        return False
    if numbers[-1] / numbers[0] >= 100 and statistics.median(numbers) <= numbers[-1] / 4:
        return True
    steps = np.diff(np.log10(numbers))
    return len(steps) > 1 and bool(np.ptp(steps) < 0.05 * steps.mean())


def as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those that do not overlap, always with the lowest and the highest."""
    lowest, *others = sorted(ticks)
    kept = [lowest]
    for tick in others:
        if tick[0] - kept[-1][0] >= 0.045:
            kept.append(tick)
    return [*kept[:-1], max(ticks)] if len(kept) > 1 else kept
