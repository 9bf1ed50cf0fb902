"""A snapshot of a sweep as the terminal shows it."""

from collections.abc import Sequence

from digitlab.results.summary import value_of
from digitlab.results.tables import shortened
from digitlab.sweep.overview import STYLES
from digitlab.sweep.watching.snapshot import Snapshot
from digitlab.sweep.workers.display import in_words
from digitlab.text.terminal import table_text
from digitlab.tracking.names import VALIDATION_ACCURACY

MOST_RUNNING, MOST_BEST = 10, 5
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # of a curve, in characters
MOST_NAME = 60


def page(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Texts, each with its style: how far it is, what runs, the best, and how that became better."""
    about = f"sweep {snapshot.id}, study {snapshot.study}: {snapshot.status}"
    parts = [(snapshot.name, "bold"), (about, STYLES.get(snapshot.status, "")), (_bar(snapshot), "")]
    if snapshot.running:
        parts.append((_running(snapshot), ""))
    if snapshot.summary.ranked:
        parts += [(_best(snapshot), ""), (_curve(snapshot), "cyan")]
    return parts


def _bar(snapshot: Snapshot) -> str:
    results = snapshot.summary.results
    failed = sum(result.state == "FAILED" for result in results)
    waiting = max(snapshot.num_trials - len(results) - len(snapshot.running), 0)
    counts = [f"{len(results)}/{snapshot.num_trials} trials"]
    counts += [f"{len(snapshot.running)} running"] * bool(snapshot.running)
    counts += [f"{waiting} waiting"] * bool(waiting) + [f"{failed} failed"] * bool(failed)
    counts.append(in_words(snapshot.seconds))
    if snapshot.seconds_left is not None:
        counts.append(f"about {in_words(snapshot.seconds_left)} left")
    filled = round(24 * snapshot.share)
    return f"{'━' * filled}{'─' * (24 - filled)} {', '.join(counts)}"


def _running(snapshot: Snapshot) -> str:
    rows = [
        (
            shortened(one.name, MOST_NAME),
            f"{one.epoch}/{one.epochs}",
            "" if one.value is None else _number(one.value, snapshot),
        )
        for one in snapshot.running[:MOST_RUNNING]
    ]
    if (more := len(snapshot.running) - MOST_RUNNING) > 0:
        rows.append((f"and {more} more", "", ""))
    titles = ("running", "epoch", snapshot.metric)
    return table_text(titles, rows, right=titles[1:])


def _best(snapshot: Snapshot) -> str:
    rows = [
        (
            shortened(point.trials[0].name, MOST_NAME),
            _number(point.validation.mean, snapshot),
            (point.trials[0].run_id or "")[:8],
        )
        for point in snapshot.summary.ranked[:MOST_BEST]
    ]
    return table_text(("best so far", snapshot.metric, "run"), rows, right=(snapshot.metric,))


def _curve(snapshot: Snapshot) -> str:
    """The best value after each trial that has ended, in their order."""
    metric, best = snapshot.metric, list[float]()
    better = max if metric == VALIDATION_ACCURACY else min
    for result in snapshot.summary.results:
        if (value := value_of(result, metric)) is not None:
            best.append(better([*best[-1:], value]))
    first, last = _number(best[0], snapshot), _number(best[-1], snapshot)
    return f"best, trial by trial  {first} {sparkline(best)} {last}"


def sparkline(values: Sequence[float]) -> str:
    """One bar each; of many values as many as there is room for, evenly taken."""
    if len(values) > WIDTH:
        values = [values[round(k * (len(values) - 1) / (WIDTH - 1))] for k in range(WIDTH)]
    low, span = min(values), max(values) - min(values)
    return "".join(BARS[round((v - low) / span * (len(BARS) - 1)) if span else 0] for v in values)


def _number(value: float, snapshot: Snapshot) -> str:
    is_share = snapshot.metric == VALIDATION_ACCURACY
    return f"{100 * value:.2f} %" if is_share else f"{value:.4f}"
