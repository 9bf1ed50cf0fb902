"""The figure that a report adds to those of runs and sweeps: a metric against each swept knob.

Draws with matplotlib's Figure, without pyplot's state. Knows no store.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from digitlab.results.compare.groups import METRICS, MODEL, Group
from digitlab.results.scales import as_number, grows_by_ratio
from digitlab.results.tables import knob_title, metric_title, shortened
from digitlab.runs.plots import save

# Okabe and Ito's colours, told apart with any colour vision; each with a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
MAX_LABELS = 12


def draw_against_knob(groups: Sequence[Group], knob: str, metric: str, file: Path) -> None:
    """Each group's mean and 95 % interval, coloured by the model where it varies.

    The line joins the best of each value: what the knob allows, whatever the others are.
    """
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    _draw_panel(axes, groups, knob, metric)
    axes.set_title(f"{metric_title(metric, unit=False)} by {knob_title(knob)}", fontsize=10)
    axes.set_ylabel(metric_title(metric))
    _limit_to_the_better_half(axes, groups, metric)
    captions = [_meaning(groups, metric), *_not_shown(axes, groups, metric)]
    figure.supxlabel("; ".join(captions), fontsize=7)
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    save(figure, file, dpi=200)


def _meaning(groups: Sequence[Group], metric: str) -> str:
    """`bars: 95 % interval of the mean over 3 seeds; line: the best of each value`."""
    sizes = sorted({score.n for group in groups if (score := group.estimate(metric))})
    if not sizes:
        return f"no run has a {metric}"
    seeds = f"{sizes[0]} to {sizes[-1]} seeds" if len(sizes) > 1 else f"{sizes[0]} seeds"
    bars = (
        f"bars: 95 % interval of the mean over {seeds}" if sizes[-1] > 1 else "one seed each: no bars"
    )
    return f"{bars}; line: the best of each value"


def _draw_panel(axes: Axes, groups: Sequence[Group], knob: str, metric: str) -> None:
    texts = list(dict.fromkeys(group.knobs[knob] for group in groups if knob in group.knobs))
    numbers = {text: as_number(text) for text in texts}
    is_numeric = all(number is not None for number in numbers.values())
    order = sorted(texts, key=lambda text: numbers[text] or 0.0) if is_numeric else texts
    places = {t: float(numbers[t] or 0.0) if is_numeric else float(i) for i, t in enumerate(order)}
    kinds = sorted({group.knobs.get(MODEL, "") for group in groups})  # the same colours in each report
    for number, kind in enumerate(kinds):
        own = [g for g in groups if g.knobs.get(MODEL, "") == kind and knob in g.knobs]
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        _draw_groups(axes, own, knob, metric, places, label=kind.replace("_", " "), style=style)
    axes.set_xlabel(knob_title(knob))
    axes.grid(alpha=0.3)
    if not is_numeric:
        axes.set_xticks(
            range(len(order)),
            [shortened(text, 20) for text in order],
            rotation=20 if len(order) > 3 else 0,
        )
        axes.margins(x=0.15)
    elif grows_by_ratio(sorted(places.values())):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    if is_numeric and len(order) <= MAX_LABELS // 2:
        axes.set_xticks([places[text] for text in order], order)
        axes.minorticks_off()


def _draw_groups(
    axes: Axes,
    groups: Sequence[Group],
    knob: str,
    metric: str,
    places: dict[str, float],
    *,
    label: str,
    style: dict[str, Any],
) -> None:
    best: dict[float, float] = {}
    sign = 1 if METRICS[metric][1] else -1
    for group in groups:
        score = group.estimate(metric)
        if score is None:
            continue
        x, unit = places[group.knobs[knob]], _unit(metric)
        error = unit * score.half_width if score.half_width else None
        axes.errorbar(
            x, unit * score.mean, error, **style, ms=5, alpha=0.65, elinewidth=1, capsize=2, ls=""
        )
        best[x] = max(best.get(x, -math.inf), sign * unit * score.mean)
    line = sorted(best)
    axes.plot(line, [sign * best[x] for x in line], **style, ms=0, lw=1.4, label=label)


def _limit_to_the_better_half(axes: Axes, groups: Sequence[Group], metric: str) -> None:
    """One point that learned nothing must not press all others onto the upper edge."""
    if metric.endswith("accuracy"):
        axes.set_ylim(None, min(axes.get_ylim()[1], 100.5))
    means = [_unit(metric) * score.mean for group in groups if (score := group.estimate(metric))]
    if not means:
        return
    if not METRICS[metric][1]:
        axes.set_ylim(None, 2 * float(np.median(means)))
        return
    middle, top = float(np.median(means)), max(means)
    if min(means) < middle - 4 * (top - middle):
        axes.set_ylim(middle - 2.5 * (top - middle) - 0.5, top + 0.15 * (top - middle) + 0.1)


def _not_shown(axes: Axes, groups: Sequence[Group], metric: str) -> Iterator[str]:
    """`not shown: means from 10 to 51.67`."""
    low, high = axes.get_ylim()
    means = [_unit(metric) * score.mean for group in groups if (score := group.estimate(metric))]
    if outside := [mean for mean in means if not low <= mean <= high]:
        ends = dict.fromkeys(f"{mean:.4g}" for mean in (min(outside), max(outside)))
        yield f"not shown: {len(outside)} of {len(means)} means, {' to '.join(ends)}"


def _unit(metric: str) -> float:
    return 100.0 if metric.endswith("accuracy") else 1.0
