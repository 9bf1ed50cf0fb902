"""A mean over seeds and how well it is known. Knows nothing of runs."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from digitlab.results.tables import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over n seeds and the half-width of its 95 % t-interval, None for one seed."""

    mean: float
    half_width: float | None
    n: int


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Of the finite values; None if there is none.

    Student's t: half-width = t(0.975, n - 1) * s / sqrt(n).
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if len(finite) < 2:
        return Estimate(mean=finite[0], half_width=None, n=1) if finite else None
    from scipy.special import stdtrit  # scipy.stats takes 0.7 s

    error = statistics.stdev(finite) / math.sqrt(len(finite))
    half_width = float(stdtrit(len(finite) - 1, 0.975)) * error
    return Estimate(mean=statistics.fmean(finite), half_width=half_width, n=len(finite))


def reads(score: Estimate | None, metric: str) -> str:
    """`97.22 % ± 0.31`, `0.1234 ± 0.0012`; without an interval for one seed."""
    if score is None:
        return "-"
    is_share = metric.endswith("accuracy")
    mean = percent(score.mean) if is_share else f"{score.mean:.4f}"
    if score.half_width is None:
        return mean
    return f"{mean} ± {100 * score.half_width:.2f}" if is_share else f"{mean} ± {score.half_width:.4f}"
