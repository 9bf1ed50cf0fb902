"""Whether a difference is real: paired tests and intervals by scipy.

Knows numbers only: no runs, no store. scipy takes a second to import and stays inside.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

LEVEL = 0.05  # of the corrected p-values, from where there is some evidence; intervals are of 1 - LEVEL
STRONG = 0.01  # from where a difference is called real
NUM_RESAMPLES = 20_000
ROUNDING = 1e-12  # far below one image: differences of equal shares are not exactly equal

Bools = npt.NDArray[np.bool_]
Evidence = Literal["real", "some", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How two sides differ. Shares in [0, 1], the first side less the second.

    interval: 95 %, of this difference alone. p: two-sided, None where no test is possible, for the
    `reason`. corrected_p: by Holm over all comparisons made together. counts: of McNemar's test, the
    images that only the first, and only the second side has right.
    """

    difference: float
    interval: tuple[float, float] | None
    test: str
    p: float | None
    corrected_p: float | None = None
    counts: tuple[int, int] | None = None
    reason: str | None = None

    @property
    def evidence(self) -> Evidence:
        """Of a difference; `none` where it is not tested."""
        if self.corrected_p is None or self.corrected_p >= LEVEL:
            return "none"
        return "real" if self.corrected_p < STRONG else "some"


def compare_predictions(first: Bools, second: Bools) -> Finding:
    """Of two models on the same images: which of them, (N,), each had right.

    McNemar's exact test (the binomial on the images that one of them alone had right), and a
    percentile bootstrap over images. It speaks of these two trained models, not of other seeds.
    """
    from scipy import stats

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    num_told_apart = only_first + only_second
    return Finding(
        difference=(only_first - only_second) / len(first),
        interval=bootstrap_interval(only_first, only_second, len(first)),
        test=f"McNemar's exact test on the same {len(first):,} test images",
        p=float(stats.binomtest(only_first, num_told_apart).pvalue) if num_told_apart else 1.0,
        counts=(only_first, only_second),
    )


def bootstrap_interval(only_first: int, only_second: int, num_images: int) -> tuple[float, float]:
    """The 95 % percentile interval of the difference of two accuracies, images drawn in pairs.

    A resample of N images is a draw of the multinomial over those that the first, the second and
    neither alone has right: the same distribution as drawing images, in a millisecond.
    """
    shares = np.array([only_first, only_second, num_images - only_first - only_second]) / num_images
    draws = np.random.default_rng(0).multinomial(num_images, shares, size=NUM_RESAMPLES)
    differences = (draws[:, 0] - draws[:, 1]) / num_images
    low, high = np.quantile(differences, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def compare_seeds(first: Mapping[str, float], second: Mapping[str, float]) -> Finding:
    """Of two groups of runs: a value by seed.

    The same seeds make pairs (paired t-test); otherwise Welch's t-test, which does not take the
    spreads to be equal. Two seeds a side are the least that says anything.
    """
    from scipy import stats

    a, b = list(first.values()), list(second.values())
    difference = float(np.mean(a) - np.mean(b))
    is_paired = first.keys() == second.keys()
    pairs = [first[seed] - second[seed] for seed in first] if is_paired else []
    if min(len(a), len(b)) < 2:
        return untested(difference, "it takes two seeds on each side at least (repeats=3 makes three)")
    if is_paired and np.ptp(pairs) < ROUNDING:
        return untested(difference, "the difference is the same for every seed, which has no spread")
    if not is_paired and max(np.ptp(a), np.ptp(b)) < ROUNDING:
        return untested(difference, "the results are the same for every seed, which has no spread")
    with warnings.catch_warnings():
        # scipy doubts the variance of a side of which all results are equal: it is 0, rightly.
        warnings.simplefilter("ignore", RuntimeWarning)
        if is_paired:
            test = f"paired t-test over {len(a)} seeds"
            result: Any = stats.ttest_rel(a, [second[seed] for seed in first])
        else:
            test = f"Welch's t-test over {len(a)} and {len(b)} seeds"
            result = stats.ttest_ind(a, b, equal_var=False)
    interval = result.confidence_interval(1 - LEVEL)
    return Finding(
        difference=difference,
        interval=(float(interval.low), float(interval.high)),
        test=test,
        p=float(result.pvalue),
    )


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """With p-values by Holm (1979), which bound the chance of any false alarm among them all."""
    ordered = sorted((finding.p, i) for i, finding in enumerate(findings) if finding.p is not None)
    adjusted, largest = list(findings), 0.0
    for rank, (p, i) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * p))
        adjusted[i] = replace(findings[i], corrected_p=largest)
    return adjusted


def untested(difference: float, reason: str) -> Finding:
    """A difference of which nothing can be said."""
    return Finding(difference=difference, interval=None, test="none", p=None, reason=reason)
