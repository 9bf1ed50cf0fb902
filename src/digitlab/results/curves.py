"""Learning curves of a sweep: mean and range of each point by epoch, the best apart from the others.

Knows nothing of axes and no library that draws.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from digitlab.config.kinds import Metric
from digitlab.results.summary import Ranked, Summary
from digitlab.results.tables import shortened
from digitlab.results.trial_result import TrialResult

NUM_LABELLED = 10  # of the best: more colours are hard to tell apart
OTHERS_COLOUR = "#b0b0b0"


@dataclass(frozen=True, slots=True)
class Curve:
    """The metric by epoch: mean, lowest and highest over the trials that reached the epoch."""

    label: str
    epochs: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def best_and_others(summary: Summary) -> tuple[list[Curve], list[Curve]]:
    """The best points, best first, to be labelled, and all others; each unranked trial is one."""
    ranked, metric = summary.ranked, summary.metric
    best: list[Curve] = []
    others: list[Curve] = []
    for place, point in enumerate(ranked, start=1):
        if curve := _curve(f"{place}. {_name(point)}", point.trials, metric):
            (best if len(best) < NUM_LABELLED else others).append(curve)
    used = {trial.number for point in ranked for trial in point.trials}
    left = [_curve(f"{r.state} {r.name}", [r], metric) for r in summary.results if r.number not in used]
    return best, others + [curve for curve in left if curve]


def has_bands(curves: Sequence[Curve]) -> bool:
    """Whether a mean of theirs is one of several values."""
    return any(curve.low != curve.high for curve in curves)


def value_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """With a margin; what diverged and is not among the curves stays outside."""
    low, high = min(min(curve.low) for curve in curves), max(max(curve.high) for curve in curves)
    margin = (high - low) / 20 or 0.01
    return low - margin, high + margin


def _curve(label: str, trials: Sequence[TrialResult], metric: Metric) -> Curve | None:
    """None without a finite value."""
    pairs = sorted((epoch, value) for t in trials for epoch, value in t.history.get(metric, []))
    by_epoch: dict[int, list[float]] = {}
    for epoch, value in pairs:
        if math.isfinite(value):
            by_epoch.setdefault(epoch, []).append(value)
    if not by_epoch:
        return None
    mean, low, high = (
        [f(values) for values in by_epoch.values()] for f in (statistics.fmean, min, max)
    )
    return Curve(label, list(by_epoch), mean, low, high)


def _name(point: Ranked) -> str:
    """The trial's name; of several seeds without the seed, which stands in it as `seed=3`."""
    trial = point.trials[0]
    if point.n == 1:
        return shortened(trial.name, 40)
    parts = [part for part in trial.name.split() if part != f"seed={trial.swept.get('seed')}"]
    return " ".join([shortened(" ".join(parts), 40), f"({point.n} seeds)"]).strip()
