"""What is said of a comparison: the rows of its table, the sentences of its tests, its notes.

Knows no store and no form: the terminal, JSON, Markdown and the report say the same.
"""

import math
from collections import Counter
from collections.abc import Sequence

from digitlab.results.compare.compare import Comparison
from digitlab.results.compare.groups import Group, best, knobs_of
from digitlab.results.compare.significance import LEVEL, STRONG, Evidence, Finding
from digitlab.results.estimates import reads
from digitlab.results.tables import short_title
from digitlab.tracking.names import (
    CALIBRATION_ERROR,
    TEST_ACCURACY,
    TEST_LOSS,
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
)

MANY, FEW = 10, 5  # comparisons, and seeds: then the correction leaves little to be shown
BEST_MARK = "*"
TITLES = {
    VALIDATION_ACCURACY: "validation",
    VALIDATION_LOSS: "validation loss",
    TEST_ACCURACY: "test",
    TEST_LOSS: "test loss",
    CALIBRATION_ERROR: "calibration error",
}
SHOWN = (VALIDATION_ACCURACY, TEST_ACCURACY, TEST_LOSS)
VERDICTS: dict[Evidence, str] = {
    "real": "a real difference",
    "some": "some evidence of a difference",
    "none": "no evidence of a difference",
}
AGAINST = "test vs "  # the title of the differences to the reference, with its row


def table_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Title to text, one row a group; the best of each metric carries a star."""
    groups, metrics = comparison.groups, _metrics(comparison)
    winners = {metric: best(groups, metric) for metric in metrics} if len(groups) > 1 else {}
    titles = _knob_titles(groups)
    findings = {id(group): finding for group, finding in comparison.findings}
    several = any(len(group.runs) > 1 for group in groups)
    first = groups.index(comparison.reference) + 1
    rows = []
    for place, group in enumerate(groups, start=1):
        row = {"": str(place), "run": _run_ids(group)}
        row |= {title: group.knobs.get(knob, "-") for knob, title in titles.items()}
        for metric in metrics:
            star = BEST_MARK if group in winners.get(metric, []) else ""
            row[TITLES[metric]] = star + reads(group.estimate(metric), metric)
        if several:
            row["n"] = str(len(group.runs))
        if findings:
            finding = findings.get(id(group))
            row[f"{AGAINST}{first}"] = _short(finding) if finding else ""
        rows.append(row)
    return rows


def legend(comparison: Comparison) -> str:
    """What the table is sorted by, and what its star means."""
    return f"Sorted by {comparison.metric}; {BEST_MARK} best of its column."


def question(comparison: Comparison) -> str:
    """What the sentences answer."""
    place = comparison.groups.index(comparison.reference) + 1
    tested = sum(finding.p is not None for _, finding in comparison.findings)
    corrected = (
        f"; p-values, not the intervals, are corrected for {tested} comparisons (Holm)"
        if tested > 1
        else ""
    )
    return f"Is it real? Test accuracy against row {place} ({comparison.reference.label}){corrected}:"


def sentences(comparison: Comparison) -> list[str]:
    """What the tests say of each row's difference to the reference, in the order of the rows."""
    places = {id(group): place for place, group in enumerate(comparison.groups, start=1)}
    return [
        f"{places[id(group)]} ({group.label}): {_sentence(finding)}"
        for group, finding in comparison.findings
    ]


def notes(comparison: Comparison) -> list[str]:
    """What the table and the sentences do not say by themselves."""
    lines = []
    sizes = {len(group.runs) for group in comparison.groups}
    if len(comparison.groups) == 1:
        lines.append("One row: name another run, a sweep or a study to compare it with.")
    if 2 in sizes:
        lines.append(
            "Two seeds say next to nothing of how others would spread: the ± of two is 12.7 standard "
            "errors of their mean, that of five 2.8 (repeats=5)."
        )
    if any(finding.p is not None for _, finding in comparison.findings):
        lines.append(
            f"Real: corrected p below {STRONG}; some evidence: below {LEVEL}; n.s.: not significant, "
            "which is no evidence that there is no difference."
        )
    if max(sizes) > 1:
        lines.append(
            "Means over n seeds, ± the half-width of the 95 % t-interval. Tests over seeds speak of "
            "training again, judged by these same test images."
        )
    tested = sum(finding.p is not None for _, finding in comparison.findings)
    if tested >= MANY and any(1 < len(group.runs) < FEW for group in comparison.groups):
        lines.append(
            f"{tested} comparisons over so few seeds can show but the largest differences: compare "
            "fewer rows, or give them more seeds."
        )
    if any(finding.counts for _, finding in comparison.findings):
        lines.append(
            "McNemar's test speaks of these trained models; whether the recipes differ takes several "
            "seeds of each."
        )
    return [*lines, *comparison.notes]


def _sentence(finding: Finding) -> str:
    """`+0.42 points (95 % interval +0.10 to +0.74; ..., p = 0.011): a real difference.`"""
    points = f"{100 * finding.difference:+.2f} points"
    if finding.p is None or finding.corrected_p is None:
        return f"{points}; not tested: {finding.reason}."
    low, high = finding.interval or (math.nan, math.nan)
    details = [f"95 % interval {100 * low:+.2f} to {100 * high:+.2f}", finding.test]
    if finding.counts:
        details.append(f"right alone on {finding.counts[0]} images, wrong alone on {finding.counts[1]}")
    verdict = VERDICTS[finding.evidence]
    return f"{points} ({'; '.join(details)}; {_p_value(finding.corrected_p)}): {verdict}."


def _metrics(comparison: Comparison) -> list[str]:
    metrics = [*SHOWN, *([comparison.metric] if comparison.metric not in SHOWN else [])]
    return [m for m in metrics if any(group.estimate(m) for group in comparison.groups)]


def _knob_titles(groups: Sequence[Group]) -> dict[str, str]:
    """Knob to its column's title: the leaf, or the whole path where leaves collide."""
    knobs = knobs_of(groups)
    short = Counter([*map(short_title, knobs), "run", "n", *TITLES.values()])
    return {k: short_title(k) if short[short_title(k)] == 1 else k for k in knobs}


def _run_ids(group: Group) -> str:
    more = len(group.runs) - 1
    return group.runs[0].short_id + (f" +{more}" if more else "")


def _short(finding: Finding) -> str:
    """`-0.42 real`, `-0.42 p = 0.03`, `-0.03 n.s.` (not significant), `-0.03` (not tested)."""
    points = f"{100 * finding.difference:+.2f}"
    if finding.corrected_p is None:
        return points
    marks = {"real": "real", "some": _p_value(finding.corrected_p), "none": "n.s."}
    return f"{points} {marks[finding.evidence]}"


def _p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.3g}"
