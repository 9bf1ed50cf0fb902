"""A comparison on the terminal, as JSON, CSV and Markdown. Knows no store."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from digitlab.config.checking import from_param
from digitlab.results.compare.compare import Comparison
from digitlab.results.compare.differences import Difference
from digitlab.results.compare.groups import METRICS, Group, best, knobs_of
from digitlab.results.compare.wording import (
    AGAINST,
    BEST_MARK,
    TITLES,
    legend,
    notes,
    question,
    sentences,
    table_rows,
)
from digitlab.results.tables import latex_table, markdown_table
from digitlab.text.terminal import console, echo, show_table, styled, table_text
from digitlab.tracking.names import TEST_ACCURACY

MAX_ROWS = 30
NARROW = 100  # characters: a narrower terminal does without the losses
MAX_SENTENCES = 10


def print_comparison(comparison: Comparison, differing: Sequence[Difference]) -> None:
    rows = table_rows(comparison)
    out = console()
    if out.is_terminal and out.width < NARROW:
        rows = [{title: cell for title, cell in row.items() if title != "test loss"} for row in rows]
    _show_rows(rows[:MAX_ROWS])
    echo("\n".join(_lines(comparison, rows)))
    if differing:
        echo("")
        _show_differences(differing, comparison.groups)


def as_text(comparison: Comparison) -> str:
    """What is printed, without the colours of a terminal."""
    rows = table_rows(comparison)
    table = table_text([*rows[0]], [row.values() for row in rows[:MAX_ROWS]], right=_right(rows[0]))
    return "\n".join([table, *_lines(comparison, rows)])


def _lines(comparison: Comparison, rows: Sequence[object]) -> list[str]:
    """What stands below the table."""
    lines = []
    if len(rows) > MAX_ROWS:
        lines.append(f"… and {len(rows) - MAX_ROWS} more (all with --csv, --markdown or --json)")
    lines.append(legend(comparison))
    if verdicts := sentences(comparison):
        lines += ["", question(comparison), *(f"  {line}" for line in verdicts[:MAX_SENTENCES])]
        if len(verdicts) > MAX_SENTENCES:
            lines.append(f"  … and {len(verdicts) - MAX_SENTENCES} more")
        lines.append("")
    return [*lines, *notes(comparison)]


def as_json(comparison: Comparison, differing: Sequence[Difference] | None) -> str:
    groups = comparison.groups
    content: dict[str, Any] = {
        "sorted_by": comparison.metric,
        "rows": [
            {
                "label": group.label,
                "knobs": {knob: from_param(knob, text) for knob, text in group.knobs.items()},
                "seeds": group.seeds,
                "runs": [run.run_id for run in group.runs],
                "metrics": {
                    metric: dataclasses.asdict(score)
                    for metric in METRICS
                    if (score := group.estimate(metric))
                },
                "best_in": [metric for metric in METRICS if group in best(groups, metric)],
            }
            for group in groups
        ],
        "comparisons": [
            {
                "first": groups.index(comparison.reference) + 1,
                "second": groups.index(group) + 1,
                "metric": TEST_ACCURACY,
                **dataclasses.asdict(finding),
                "evidence": finding.evidence,
                "is_real": finding.evidence == "real",
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
    groups, findings = comparison.groups, {id(group): finding for group, finding in comparison.findings}
    knobs = knobs_of(groups)
    metrics = [metric for metric in METRICS if any(group.estimate(metric) for group in groups)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{metric}{part}" for metric in metrics for part in ("", " ± 95 %")]
    tests = ["difference", "low", "high", "p", "corrected p", "test"]
    writer.writerow(["place", *knobs, "n", "seeds", "runs", *columns, *tests])
    for place, group in enumerate(groups, start=1):
        numbers: list[Any] = []
        for metric in metrics:
            score = group.estimate(metric)
            numbers += [score.mean, score.half_width] if score else [None, None]
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
    parts.append(legend(comparison))
    if verdicts := sentences(comparison):
        parts += [question(comparison), "\n".join(f"- {line}" for line in verdicts)]
    parts += notes(comparison)
    if differing:
        runs = [group.runs[0].short_id for group in comparison.groups]
        others = [[one.section, one.name, *one.values] for one in differing]
        parts.append(markdown_table([["what", "differs", *runs], *others]))
    return "\n\n".join(part.replace(BEST_MARK, r"\*") for part in parts) + "\n"


def as_latex(comparison: Comparison) -> str:
    """What else is said of the table are comments of LaTeX."""
    rows = table_rows(comparison)
    texts = [legend(comparison), *sentences(comparison), *notes(comparison)]
    comments = [f"% {line}" for text in texts for line in text.splitlines()]
    table = latex_table([list(rows[0]), *(list(row.values()) for row in rows)])
    return "\n".join([r"% needs \usepackage{booktabs}", *comments, table]) + "\n"


def _show_rows(rows: Sequence[dict[str, str]]) -> None:
    """The best of each column in green, where there are colours."""
    cells = (
        [styled(cell, "bold green" if cell.startswith(BEST_MARK) else "") for cell in row.values()]
        for row in rows
    )
    show_table([*rows[0]], cells, right=_right(rows[0]))


def _right(titles: Iterable[str]) -> set[str]:
    """Those of numbers, set flush right."""
    return {"", "n", *TITLES.values(), *(title for title in titles if title.startswith(AGAINST))}


def _show_differences(differing: Sequence[Difference], groups: Sequence[Group]) -> None:
    """By section; a column for the first run of each group."""
    rows: list[list[Any]] = []
    for place, one in enumerate(differing):
        if place == 0 or differing[place - 1].section != one.section:
            rows.append([styled(one.section, "bold")])
        rows.append([f"  {one.name}", *one.values])
    show_table(["what differs", *(group.runs[0].short_id for group in groups)], rows)
