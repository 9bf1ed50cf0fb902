"""A comparison as a table on the terminal, JSON, CSV, Markdown. Knows no store."""

import csv
import dataclasses
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from digitlab.comparison.comparing import TEST, Comparison
from digitlab.comparison.differences import Difference
from digitlab.comparison.groups import METRICS, Group, best
from digitlab.comparison.significance import Finding
from digitlab.estimates import reads
from digitlab.tables import short_title

MAX_ROWS = 30
NARROW = 100  # characters: a narrower terminal does without the losses
MAX_SENTENCES = 10
MANY, FEW = 10, 5  # comparisons, and seeds: then the correction leaves little to be shown
BEST_MARK = "*"
TITLES = {
    "validation/accuracy": "validation",
    "validation/loss": "validation loss",
    "test/accuracy": "test",
    "test/loss": "test loss",
    "test/calibration_error": "calibration error",
}
SHOWN = ("validation/accuracy", "test/accuracy", "test/loss")


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
            found = findings.get(id(group))
            row[f"test vs {first}"] = _short(found) if found else ""
        rows.append(row)
    return rows


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


def _sentence(finding: Finding) -> str:
    """`+0.42 points (95 % interval +0.10 to +0.74; ..., p = 0.011): a real difference.`"""
    points = f"{100 * finding.difference:+.2f} points"
    if finding.p is None or finding.corrected_p is None:
        return f"{points}; not tested: {finding.reason}."
    low, high = finding.interval or (math.nan, math.nan)
    details = [f"95 % interval {100 * low:+.2f} to {100 * high:+.2f}", finding.test]
    if finding.counts:
        details.append(f"right alone on {finding.counts[0]} images, wrong alone on {finding.counts[1]}")
    verdict = "a real difference" if finding.is_real else "no evidence of a difference"
    return f"{points} ({'; '.join(details)}; {_p_value(finding.corrected_p)}): {verdict}."


def notes(comparison: Comparison) -> list[str]:
    """What the table and the sentences do not say by themselves."""
    lines = []
    sizes = {len(group.runs) for group in comparison.groups}
    if len(comparison.groups) == 1:
        lines.append("One row: name another run, a sweep or a study to compare it with.")
    if 2 in sizes:
        lines.append("With two seeds a test can show next to nothing: repeats=5 makes five.")
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


def print_comparison(comparison: Comparison, differing: Sequence[Difference]) -> None:
    rows = table_rows(comparison)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 100_000  # on a pipe a line is as long as it needs to be
    if console.width < NARROW:
        rows = [{title: cell for title, cell in row.items() if title != "test loss"} for row in rows]
    lines = _captured(console, _table(rows[:MAX_ROWS], console.is_terminal))
    if len(rows) > MAX_ROWS:
        lines.append(f"… and {len(rows) - MAX_ROWS} more (all with --csv, --markdown or --json)")
    lines.append(f"Sorted by {comparison.metric}; * best of its column.")
    if told := sentences(comparison):
        lines += ["", question(comparison), *(f"  {line}" for line in told[:MAX_SENTENCES])]
        if len(told) > MAX_SENTENCES:
            lines.append(f"  … and {len(told) - MAX_SENTENCES} more")
        lines.append("")
    lines += notes(comparison)
    if differing:
        runs = [group.runs[0] for group in comparison.groups]
        table = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("what differs", *(run.short_id for run in runs)):
            table.add_column(title, overflow="fold")
        for place, one in enumerate(differing):
            if place == 0 or differing[place - 1].section != one.section:
                table.add_row(one.section, style="bold")
            table.add_row(f"  {one.name}", *one.values)
        lines += ["", *_captured(console, table)]
    click.echo("\n".join(lines))


def as_json(comparison: Comparison, differing: Sequence[Difference] | None) -> str:
    groups = comparison.groups
    content: dict[str, Any] = {
        "sorted_by": comparison.metric,
        "rows": [
            {
                "label": group.label,
                "knobs": group.knobs,
                "seeds": group.seeds,
                "runs": [run.run_id for run in group.runs],
                "metrics": {
                    metric: dataclasses.asdict(found)
                    for metric in METRICS
                    if (found := group.estimate(metric))
                },
                "best_in": [metric for metric in METRICS if group in best(groups, metric)],
            }
            for group in groups
        ],
        "comparisons": [
            {
                "first": groups.index(comparison.reference) + 1,
                "second": groups.index(group) + 1,
                "metric": TEST,
                **dataclasses.asdict(finding),
                "is_real": finding.is_real,
            }
            for group, finding in comparison.findings
        ],
        "notes": notes(comparison),
    }
    if differing is not None:
        content["differences"] = [dataclasses.asdict(one) for one in differing]
    return json.dumps(content, indent=1)


def as_csv(comparison: Comparison) -> str:
    """One row a group: knobs by their full path, numbers in full precision."""
    groups, findings = comparison.groups, {id(group): found for group, found in comparison.findings}
    knobs = list(dict.fromkeys(knob for group in groups for knob in group.knobs))
    metrics = [metric for metric in METRICS if any(group.estimate(metric) for group in groups)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{metric}{part}" for metric in metrics for part in ("", " ± 95 %")]
    tests = ["difference", "low", "high", "p", "corrected p", "test"]
    writer.writerow(["place", *knobs, "n", "seeds", "runs", *columns, *tests])
    for place, group in enumerate(groups, start=1):
        numbers: list[Any] = []
        for metric in metrics:
            found = group.estimate(metric)
            numbers += [found.mean, found.half_width] if found else [None, None]
        lists = [" ".join(group.seeds), " ".join(run.run_id for run in group.runs)]
        one = findings.get(id(group))
        low, high = (one.interval or (None, None)) if one else (None, None)
        tested = [one.difference, low, high, one.p, one.corrected_p, one.test] if one else [None] * 6
        values = [group.knobs.get(knob, "") for knob in knobs]
        writer.writerow([place, *values, len(group.runs), *lists, *numbers, *tested])
    return text.getvalue()


def as_markdown(comparison: Comparison, differing: Sequence[Difference] = ()) -> str:
    rows = table_rows(comparison)
    parts = [markdown_table([list(rows[0]), *(list(row.values()) for row in rows)])]
    parts.append(f"Sorted by {comparison.metric}; {BEST_MARK} best of its column.")
    if told := sentences(comparison):
        parts += [question(comparison), "\n".join(f"- {line}" for line in told)]
    parts += notes(comparison)
    if differing:
        runs = [group.runs[0].short_id for group in comparison.groups]
        rows_ = [[one.section, one.name, *one.values] for one in differing]
        parts.append(markdown_table([["what", "differs", *runs], *rows_]))
    return "\n\n".join(part.replace(BEST_MARK, r"\*") for part in parts) + "\n"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _table(rows: Sequence[dict[str, str]], is_coloured: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in rows[0]:
        is_number = title in {"", "n", *TITLES.values()} or title.startswith("test vs ")
        table.add_column(title, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        cells = row.values()
        if is_coloured:
            table.add_row(*(_styled(cell) for cell in cells))
        else:
            table.add_row(*cells)
    return table


def _styled(cell: str) -> Any:
    from rich.text import Text

    return Text(cell, style="bold green" if cell.startswith(BEST_MARK) else "")


def _captured(console: Console, table: Table) -> list[str]:
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _metrics(comparison: Comparison) -> list[str]:
    wanted = [*SHOWN, *([comparison.metric] if comparison.metric not in SHOWN else [])]
    return [m for m in wanted if any(group.estimate(m) for group in comparison.groups)]


def _knob_titles(groups: Sequence[Group]) -> dict[str, str]:
    """Knob to its column's title: the leaf, or the whole path where leaves collide."""
    knobs = list(dict.fromkeys(knob for group in groups for knob in group.knobs))
    short = Counter([*map(short_title, knobs), "run", "n", *TITLES.values()])
    return {k: short_title(k) if short[short_title(k)] == 1 else k for k in knobs}


def _run_ids(group: Group) -> str:
    more = len(group.runs) - 1
    return group.runs[0].short_id + (f" +{more}" if more else "")


def _short(finding: Finding) -> str:
    """`-0.42 real`, `-0.03 n.s.` (not significant), `-0.03` (not tested)."""
    points = f"{100 * finding.difference:+.2f}"
    if finding.p is None:
        return points
    return f"{points} real" if finding.is_real else f"{points} n.s."


def _p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.3g}"
