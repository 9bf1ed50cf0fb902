"""What came of a sweep, made once: its points ranked by validation, never by test; as text.

Knows no figures, no tracker and no torch.
"""

import csv
import io
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from digitlab.config.kinds import Metric
from digitlab.results.estimates import Estimate, estimate, reads
from digitlab.results.tables import markdown_table, short_title
from digitlab.results.trial_result import TrialResult
from digitlab.text.terminal import echo, show_table
from digitlab.tracking.names import CHOSEN, TEST_ACCURACY, VALIDATION_ACCURACY, VALIDATION_LOSS

TITLES: dict[Metric, str] = {VALIDATION_ACCURACY: "validation", VALIDATION_LOSS: "validation loss"}
NUMBERS = {"rank", *TITLES.values(), "test", "n", "seconds"}  # columns set flush right


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One point of the sweep, ranked by its mean over seeds.

    trials: the finished ones with a finite value, by number; the estimates are of these. knobs: no
    `seed` where several trials share the point. planned: the point's trials in any state; where n is
    less, the mean leaves some out.
    """

    trials: tuple[TrialResult, ...]
    knobs: dict[str, str]
    validation: Estimate
    test: Estimate | None
    planned: int

    @property
    def n(self) -> int:
        return self.validation.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What every table, figure and page of a sweep shows.

    results: by number. ranked: best first; empty without a validation split. knobs: that vary. rows:
    title to text, the ranked points, then every other trial with its state in place of a rank. notes:
    what the table does not say by itself, a line each.
    """

    metric: Metric
    results: list[TrialResult]
    ranked: list[Ranked]
    knobs: list[str]
    rows: list[dict[str, str]]
    notes: list[str]

    @property
    def best(self) -> TrialResult | None:
        """The first trial of the best point."""
        return self.ranked[0].trials[0] if self.ranked else None


def summarise(results: Iterable[TrialResult], metric: Metric) -> Summary:
    by_number = sorted(results, key=lambda result: result.number)
    ranked, knobs = _rank(by_number, metric), _varying(by_number)
    others = [result for result in by_number if value_of(result, metric) is None]
    return Summary(
        metric=metric,
        results=by_number,
        ranked=ranked,
        knobs=knobs,
        rows=_rows(ranked, others, knobs, metric),
        notes=_notes(by_number, ranked, others, metric),
    )


def value_of(result: TrialResult, metric: Metric) -> float | None:
    """What a trial is ranked by, or None where it did not finish or has no finite value."""
    value = _finite(result, CHOSEN[metric])
    return value if result.state == "FINISHED" else None


def titles(knobs: Sequence[str]) -> list[str]:
    """The short title of each knob, or the whole knob where those collide."""
    short = [short_title(knob) for knob in knobs]
    taken = Counter([*short, *NUMBERS, "run"])
    return [title if taken[title] == 1 else knob for title, knob in zip(short, knobs, strict=True)]


def print_summary(summary: Summary, *, limit: int = 20) -> None:
    rows = summary.rows
    more = [f"… and {len(rows) - limit} more"] if len(rows) > limit else []
    show_table([*rows[0]] if rows else [], [row.values() for row in rows[:limit]], right=NUMBERS)
    for line in [*more, *summary.notes]:
        echo(line)


def as_markdown(summary: Summary) -> str:
    """Every row of the table, and its notes."""
    rows = summary.rows
    table = markdown_table([list(rows[0]), *(list(row.values()) for row in rows)]) if rows else ""
    return "\n\n".join(part for part in (table, *summary.notes) if part) + "\n"


def as_csv(summary: Summary) -> str:
    """One row a trial in every state: knobs by their full path, metrics in full precision."""
    knobs = _swept_knobs(summary.results)
    metrics = list(dict.fromkeys(name for result in summary.results for name in result.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head, tail = ["number", "point", "name", "state"], ["seconds", "run_id", "reused", "error"]
    writer.writerow([*head, *knobs, *metrics, *tail])
    for result in summary.results:
        values = [getattr(result, title) for title in head]
        values += [result.swept.get(knob, "") for knob in knobs]
        values += [result.metrics.get(name, "") for name in metrics]
        writer.writerow([*values, *(getattr(result, title) for title in tail)])
    return text.getvalue()


def _rank(results: Sequence[TrialResult], metric: Metric) -> list[Ranked]:
    """Best first by the tested weights' validation metric; ties by trial number."""
    planned = Counter(result.point for result in results)
    points: dict[int, list[TrialResult]] = {}
    for result in results:
        if value_of(result, metric) is not None:
            points.setdefault(result.point, []).append(result)
    ranked = [_ranked(trials, metric, planned[point]) for point, trials in points.items()]
    sign = -1 if metric == VALIDATION_ACCURACY else 1
    return sorted(ranked, key=lambda point: (sign * point.validation.mean, point.trials[0].number))


def _varying(results: Sequence[TrialResult]) -> list[str]:
    """The swept knobs that take several values, in the sweep's order; no `seed` where points repeat."""
    repeated = len({result.point for result in results}) < len(results)
    return [
        knob
        for knob in _swept_knobs(results)
        if len({r.swept[knob] for r in results if knob in r.swept}) > 1
        and not (repeated and knob == "seed")
    ]


def _swept_knobs(results: Iterable[TrialResult]) -> list[str]:
    return list(dict.fromkeys(knob for result in results for knob in result.swept))


def _rows(
    ranked: Sequence[Ranked], others: Sequence[TrialResult], knobs: Sequence[str], metric: Metric
) -> list[dict[str, str]]:
    places: list[tuple[str, tuple[TrialResult, ...], Estimate | None, Estimate | None, str]] = [
        (str(place), point.trials, point.validation, point.test, f"{point.n} of {point.planned}")
        for place, point in enumerate(ranked, start=1)
    ]
    places += [
        ("-" if r.state == "FINISHED" else r.state, (r,), None, _estimate([r], TEST_ACCURACY), "")
        for r in others
    ]
    several = any(point.planned > 1 for point in ranked)
    return [
        {
            "rank": place,
            "run": _runs(trials),
            **{t: trials[0].swept.get(k, "-") for t, k in zip(titles(knobs), knobs, strict=True)},
            TITLES[metric]: reads(validation, metric),
            "test": reads(test, TEST_ACCURACY),
            **({"n": n} if several else {}),
            "seconds": f"{statistics.fmean(trial.seconds for trial in trials):.1f}",
        }
        for place, trials, validation, test, n in places
    ]


def _notes(
    results: Sequence[TrialResult],
    ranked: Sequence[Ranked],
    others: Sequence[TrialResult],
    metric: Metric,
) -> list[str]:
    lines = []
    finished = [result for result in results if result.state == "FINISHED"]
    if finished and not any(CHOSEN[metric] in result.metrics for result in finished):
        lines.append("Nothing is ranked: there is no validation split (data.validation_size=0).")
    elif others:
        undefined = f"FINISHED without a finite {metric}"
        states = Counter(undefined if r.state == "FINISHED" else r.state for r in others)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        lines.append(f"Not ranked: {counts}, of {len(results)} trials.")
    for refusal, count in Counter(r.refusal for r in results if r.refusal).most_common():
        lines.append(f"Trained one by one: {count} of {len(results)} trials. Why: {refusal}.")
    if any(point.n > 1 for point in ranked):
        lines.append("Means over n seeds, ± the half-width of the 95 % t-interval; seconds per trial.")
    return lines


def _ranked(trials: Sequence[TrialResult], metric: Metric, planned: int) -> Ranked:
    validation = _estimate(trials, CHOSEN[metric])
    assert validation is not None, "only trials with a finite value are grouped"
    knobs = {k: v for k, v in trials[0].swept.items() if planned == 1 or k != "seed"}
    test = _estimate(trials, TEST_ACCURACY)
    return Ranked(trials=tuple(trials), knobs=knobs, validation=validation, test=test, planned=planned)


def _estimate(trials: Sequence[TrialResult], name: str) -> Estimate | None:
    return estimate(trial.metrics.get(name) for trial in trials)


def _finite(result: TrialResult, name: str) -> float | None:
    value = result.metrics.get(name)
    return value if value is not None and math.isfinite(value) else None


def _runs(trials: Sequence[TrialResult]) -> str:
    first = (trials[0].run_id or "-")[:8]
    return first if len(trials) == 1 else f"{first} +{len(trials) - 1}"
