"""The figures of a sweep: parallel coordinates, importance and learning curves.

Draws with matplotlib's Figure, without pyplot's state. Knows no plotly, no tracker and no torch. Optuna
is slow to import and stays inside its function.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from digitlab.results.curves import OTHERS_COLOUR, Curve, best_and_others, has_bands, value_range
from digitlab.results.scales import (
    COLOUR_SCALES,
    GAP,
    knob_scale,
    number_scale,
    titled_scales,
    varying_among,
)
from digitlab.results.summary import Summary, titles, value_of
from digitlab.results.tables import metric_title, shortened
from digitlab.runs.plots import save

# One for each of curves.NUM_LABELLED; C7 is grey.
LABELLED_COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "black", "C8", "C9")
BOX = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
TICK_LABEL: dict[str, Any] = {"fontsize": 8, "bbox": BOX, "zorder": 4}


def draw_parallel_coordinates(summary: Summary, file: Path) -> None:
    """One line a point, means over seeds; the best on top."""
    scales = titled_scales(summary)
    if not scales:
        save(_message(f"no finished trial has a {summary.metric}"), file)
        return
    figure = Figure(figsize=(max(5, 1.2 + 1.7 * len(scales)), 4.8), layout="constrained")
    axes = figure.subplots()
    heights = zip(*(scale.places for _, scale in scales), strict=True)
    lines = np.array([list(enumerate(line)) for line in heights])
    ends = lines[:, -1]
    colours = mpl.colormaps[COLOUR_SCALES[summary.metric]](ends[:, 1])
    widths = [*[min(1.6, max(0.4, 60 / len(lines)))] * (len(lines) - 1), 3.2]
    axes.add_collection(LineCollection(list(lines), colors=colours, linewidths=widths))
    axes.scatter(ends[:, 0], ends[:, 1], c=colours, s=[9 * width for width in widths], zorder=3)
    for place, (title, scale) in enumerate(scales):
        axes.axvline(place, color="black", linewidth=0.8, zorder=2.5)
        axes.text(place, 1.06, title.replace(".", ".\n"), ha="center", va="bottom", fontsize=9)
        for height, label in scale.ticks:
            axes.text(place + 0.03, height, label, va="center", **TICK_LABEL)
    axes.set(xlim=(-0.3, len(scales) - 0.3), ylim=(-0.04, 1.04))
    axes.set_axis_off()
    save(figure, file)


def draw_importance(summary: Summary, file: Path) -> bool:
    """Shares of the variance by fANOVA (Hutter, Hoos and Leyton-Brown, 2014), which add up to 1.

    Returns:
        False, and draws nothing, for fewer than 4 values, fewer than 2 knobs or equal values.
    """
    metric = summary.metric
    finished = [result for result in summary.results if value_of(result, metric) is not None]
    values = [value for result in finished if (value := value_of(result, metric)) is not None]
    knobs = varying_among([result.swept for result in finished], summary.knobs)
    if len(values) < 4 or len(knobs) < 2 or len(set(values)) == 1:
        return False
    columns = {knob: [result.swept.get(knob, GAP) for result in finished] for knob in knobs}
    target = number_scale(values)
    shares = importances(columns, target.places)
    order = sorted(knobs, key=lambda knob: shares[knob])
    figure = Figure(figsize=(7.5, 1.2 + 0.38 * len(order)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(order)), [shares[knob] for knob in order])
    axes.set_yticks(range(len(order)), [shortened(title, 40) for title in titles(order)])
    axes.bar_label(bars, [f"{100 * shares[knob]:.0f} %" for knob in order], padding=3)
    explained = f"log {metric_title(metric)}" if target.log else metric_title(metric)
    axes.set(xlim=(0, 1.1), xlabel=f"share of the variance of {explained}, by fANOVA")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, file)
    return True


def importances(columns: Mapping[str, Sequence[str]], values: Sequence[float]) -> dict[str, float]:
    """Numbers enter as places on their axis, so that a log axis counts by ratio."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    distributions: dict[str, BaseDistribution] = {}
    params: dict[str, Sequence[float | str]] = {}
    for knob, texts in columns.items():
        scale = knob_scale(texts)
        choices = CategoricalDistribution(list(dict.fromkeys(texts)))
        distributions[knob] = choices if scale.is_text else FloatDistribution(0, 1)
        params[knob] = texts if scale.is_text else scale.places
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study()
            for row, value in enumerate(values):
                chosen = {knob: column[row] for knob, column in params.items()}
                study.add_trial(
                    optuna.trial.create_trial(params=chosen, distributions=distributions, value=value)
                )
            return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    finally:
        optuna.logging.set_verbosity(verbosity)


def draw_learning_curves(summary: Summary, file: Path) -> None:
    """The mean over seeds, with a band from the lowest to the highest; only the best have a name."""
    metric = summary.metric
    best, others = best_and_others(summary)
    if not best + others:
        save(_message(f"no trial has a history of {metric}"), file)
        return
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="epoch", ylabel=metric_title(metric, unit=not metric.endswith("accuracy")))
    if metric.endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    thin = min(0.8, max(0.2, 60 / max(len(others), 1)))
    for curve in others:
        axes.plot(curve.epochs, curve.mean, color=OTHERS_COLOUR, linewidth=thin, zorder=1)
    if best:
        handles = [_draw_labelled(axes, curve, place) for place, curve in enumerate(best)]
        labels = [curve.label for curve in best]
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    notes = ["means over seeds; bands from the lowest to the highest seed"] if has_bands(best) else []
    if best and others:
        axes.set_ylim(*value_range(best))
        notes.append(f"grey: {len(others)} others, as far as they come into this range")
    axes.set_title("; ".join(notes), fontsize=9)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    save(figure, file)


def _draw_labelled(axes: Axes, curve: Curve, place: int) -> Line2D:
    colour, width, order = LABELLED_COLOURS[place], 2.4 if place == 0 else 1.3, 3 - place / 100
    (line,) = axes.plot(curve.epochs, curve.mean, "o-", color=colour, lw=width, ms=3, zorder=order)
    if has_bands([curve]):
        axes.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    return line


def _message(text: str) -> Figure:
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure
