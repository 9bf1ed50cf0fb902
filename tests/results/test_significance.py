"""Tests and intervals against published worked examples, and against scipy and statsmodels."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from digitlab.results.compare.significance import (
    Finding,
    bootstrap_interval,
    compare_predictions,
    compare_seeds,
    corrected,
    untested,
)

# Student (1908), "The probable error of a mean": extra hours of sleep by two drugs, ten patients.
FIRST_DRUG = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND_DRUG = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def by_seed(values: list[float], first: int = 0) -> dict[str, float]:
    return {str(seed): value for seed, value in enumerate(values, first)}


def answers(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which images each of two models has right."""
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("table", "p"),
    [
        # Bentur et al. (2009), as worked by Fagerland, Lydersen and Laake (2013): exact p = 0.0703.
        ((1, 1, 7, 12), 0.0703),
        # Armitage and Berry (1994), p. 127, two media for tubercle bacilli: exact p = 0.0129.
        ((20, 12, 2, 16), 0.0129),
        ((50, 0, 0, 3), 1.0),
    ],
)
def test_mcnemars_test_gives_the_published_values(table: tuple[int, ...], p: float) -> None:
    found = compare_predictions(*answers(*table))
    assert found.p == pytest.approx(p, abs=5e-5)
    assert found.counts == (table[1], table[2])
    assert found.difference == pytest.approx((table[1] - table[2]) / sum(table))


def test_tests_and_corrections_are_those_of_statsmodels() -> None:
    generator = np.random.default_rng(7)
    tables = generator.integers(0, 40, (50, 2))
    findings = [compare_predictions(*answers(30, int(a), int(b), 9)) for a, b in tables]
    expected = [mcnemar([[0, a], [b, 0]], exact=True).pvalue for a, b in tables]
    assert [one.p for one in findings] == pytest.approx(expected)
    holm = multipletests(expected, method="holm")[1]
    assert [one.corrected_p for one in corrected(findings)] == pytest.approx(list(holm))


def test_the_same_seeds_are_paired_as_in_students_own_example() -> None:
    """Student (1908): t = 4.06; with 9 degrees of freedom p = 0.00283, interval -2.46 to -0.70."""
    found = compare_seeds(by_seed(FIRST_DRUG), by_seed(SECOND_DRUG))
    assert found.test == "paired t-test over 10 seeds"
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert found.difference == pytest.approx(-1.58)
    assert found.interval == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)


def test_other_seeds_are_compared_by_welch() -> None:
    """The same data unpaired: t = -1.8608, 17.776 degrees of freedom, p = 0.07939 (R, t.test)."""
    found = compare_seeds(by_seed(FIRST_DRUG), by_seed(SECOND_DRUG, first=10))
    assert found.test == "Welch's t-test over 10 and 10 seeds"
    assert found.p == pytest.approx(0.07939, abs=5e-6)
    assert found.interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)


def test_a_side_without_spread_is_compared_without_a_word_of_scipy() -> None:
    found = compare_seeds(by_seed([0.9, 0.9, 0.9]), by_seed([0.80, 0.81, 0.82], first=5))
    assert found.p == pytest.approx(0.0041, abs=5e-5)  # t = 15.59 with 2 degrees of freedom


def test_the_bootstrap_is_that_over_pairs_of_images() -> None:
    first, second = answers(700, 60, 25, 215)
    oracle = stats.bootstrap(
        (first.astype(float), second.astype(float)),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        method="percentile",
        rng=1,
    ).confidence_interval
    low, high = bootstrap_interval(60, 25, 1000)
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.0015)
    assert bootstrap_interval(60, 25, 1000) == (low, high)  # the same each time it is asked


def test_the_bootstrap_covers_the_true_difference_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    draws = generator.multinomial(1000, [0.06, 0.04, 0.9], size=400)
    hits = [low <= 0.02 <= high for a, b, _ in draws for low, high in [bootstrap_interval(a, b, 1000)]]
    assert 0.92 <= np.mean(hits) <= 0.98


def test_many_comparisons_are_corrected_as_holm_does() -> None:
    """Holm's step-down, by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and no smaller than the one before."""
    findings = [
        Finding(difference=0.1, interval=None, test="t", p=p) for p in (0.01, 0.04, 0.03, 0.005)
    ]
    adjusted = corrected([findings[0], untested(0.0, "of one seed"), *findings[1:]])
    assert [one.corrected_p for one in adjusted] == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert [one.evidence for one in adjusted] == ["some", "none", "none", "none", "some"]
    assert corrected([]) == []


def test_without_a_difference_false_alarms_are_as_rare_as_promised() -> None:
    """40 families of 8 comparisons of equals: with Holm one family in twenty has a false alarm."""
    generator = np.random.default_rng(5)
    alarms = 0
    for _ in range(40):
        reference = by_seed(list(generator.normal(0.9, 0.01, 5)))
        others = [by_seed(list(generator.normal(0.9, 0.01, 5)), first=9) for _ in range(8)]
        alarms += any(
            one.evidence != "none" for one in corrected([compare_seeds(o, reference) for o in others])
        )
    assert alarms <= 6  # 2 expected; 7 or more happen once in 300 draws


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ([0.9], [0.8], "two seeds"),
        ([0.9, 0.91], [0.8], "two seeds"),
        ([0.9, 0.8], [0.7, 0.6], "no spread"),
        ([0.5, 0.75], [0.25, 0.5], "no spread"),
    ],
)
def test_what_cannot_be_tested_says_why(first: list[float], second: list[float], reason: str) -> None:
    found = compare_seeds(by_seed(first), by_seed(second))
    assert found.p is None
    assert reason in (found.reason or "")
    assert corrected([found])[0].evidence == "none"


def test_equal_results_of_other_seeds_are_not_tested() -> None:
    found = compare_seeds(by_seed([0.9, 0.9]), by_seed([0.8, 0.8], first=5))
    assert found.p is None
    assert "no spread" in (found.reason or "")


@pytest.mark.parametrize(
    ("p", "evidence"), [(0.009, "real"), (0.01, "some"), (0.04, "some"), (0.05, "none"), (None, "none")]
)
def test_a_difference_is_called_real_below_one_in_a_hundred(p: float | None, evidence: str) -> None:
    assert corrected([Finding(difference=0.1, interval=None, test="t", p=p)])[0].evidence == evidence
