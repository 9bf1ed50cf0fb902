"""The pictures of a sweep: PNG files by matplotlib's Figure, without pyplot's state, and one HTML page.

Knows no tracker and no torch. Optuna and plotly are slow to import and stay inside their functions.
"""

import html
import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from digitlab.config import Metric
from digitlab.sweep.results import TrialResult
from digitlab.sweep.summary import Ranked, notes, rank, table_rows, titles, value_of, varying

GAP = "(absent)"  # the value of a knob that a trial does not have
GAP_HEIGHT = 0.15
MAX_TICKS = 12
LABELLED_COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "black", "C8", "C9")  # C7 is grey
OTHERS_COLOUR = "#b0b0b0"
BOX = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
TICK_LABEL: dict[str, Any] = {"fontsize": 8, "bbox": BOX, "zorder": 4}
# The best is darkest: the highest accuracy, the lowest loss.
COLOURS: dict[Metric, str] = {"validation/accuracy": "viridis_r", "validation/loss": "viridis"}
STYLE = """body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem } div { overflow-x: auto }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; white-space: nowrap }"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Where values stand on an axis from 0 to 1, in their order. log: numbers, spaced by ratio."""

    places: list[float]
    ticks: list[tuple[float, str]]
    is_text: bool
    log: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """The metric by epoch: mean, lowest and highest over the trials that reached the epoch."""

    label: str
    epochs: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def draw_parallel_coordinates(results: Sequence[TrialResult], metric: Metric, file: Path) -> None:
    """One line a point, means over seeds; the best on top."""
    points = rank(results, metric)[::-1]
    if not points:
        _save(_message(f"no finished trial has a {metric}"), file)
        return
    scales = _scales(points, results, metric)
    figure = Figure(figsize=(max(5, 1.2 + 1.7 * len(scales)), 4.8), layout="constrained")
    axes = figure.subplots()
    heights = zip(*(scale.places for _, scale in scales), strict=True)
    lines = np.array([list(enumerate(line)) for line in heights])
    ends = lines[:, -1]
    colours = mpl.colormaps[COLOURS[metric]](ends[:, 1])
    widths = [*[min(1.6, max(0.4, 60 / len(points)))] * (len(points) - 1), 3.2]
    axes.add_collection(LineCollection(list(lines), colors=colours, linewidths=widths))
    axes.scatter(ends[:, 0], ends[:, 1], c=colours, s=[9 * width for width in widths], zorder=3)
    for place, (title, scale) in enumerate(scales):
        axes.axvline(place, color="black", linewidth=0.8, zorder=2.5)
        axes.text(place, 1.06, title.replace(".", ".\n"), ha="center", va="bottom", fontsize=9)
        for height, label in scale.ticks:
            axes.text(place + 0.03, height, _cut(label, 18), va="center", **TICK_LABEL)
    axes.set(xlim=(-0.3, len(scales) - 0.3), ylim=(-0.04, 1.04))
    axes.set_axis_off()
    _save(figure, file)


def draw_importance(results: Sequence[TrialResult], metric: Metric, file: Path) -> bool:
    """Shares of the variance by fANOVA (Hutter, Hoos and Leyton-Brown, 2014), which add up to 1.

    Returns:
        False, and draws nothing, for fewer than 4 values, fewer than 2 knobs or equal values.
    """
    finished = [result for result in results if value_of(result, metric) is not None]
    values = [value for result in finished if (value := value_of(result, metric)) is not None]
    knobs = _knobs([result.swept for result in finished], results)
    if len(values) < 4 or len(knobs) < 2 or len(set(values)) == 1:
        return False
    columns = {knob: [result.swept.get(knob, GAP) for result in finished] for knob in knobs}
    target = _number_scale(values)
    shares = _importances(columns, target.places)
    order = sorted(knobs, key=lambda knob: shares[knob])
    figure = Figure(figsize=(7.5, 1.2 + 0.38 * len(order)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(order)), [shares[knob] for knob in order])
    axes.set_yticks(range(len(order)), [_cut(title, 40) for title in titles(order)])
    axes.bar_label(bars, [f"{100 * shares[knob]:.0f} %" for knob in order], padding=3)
    explained = f"log {metric}" if target.log else metric
    axes.set(xlim=(0, 1.1), xlabel=f"share of the variance of {explained}, by fANOVA")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, file)
    return True


def draw_learning_curves(results: Sequence[TrialResult], metric: Metric, file: Path) -> None:
    """The mean over seeds, with a band from the lowest to the highest; only the best have a name."""
    best, others = _curves(results, metric)
    if not best + others:
        _save(_message(f"no trial has a history of {metric}"), file)
        return
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="epoch", ylabel=metric)
    thin = min(0.8, max(0.2, 60 / max(len(others), 1)))
    for curve in others:
        axes.plot(curve.epochs, curve.mean, color=OTHERS_COLOUR, linewidth=thin, zorder=1)
    if best:
        handles = [_draw_labelled(axes, curve, place) for place, curve in enumerate(best)]
        labels = [curve.label for curve in best]
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    if best and others:
        axes.set_ylim(*_range(best))
        axes.set_title(f"grey: {len(others)} others, as far as they come into this range", fontsize=9)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _save(figure, file)


def _draw_labelled(axes: Axes, curve: Curve, place: int) -> Line2D:
    colour, width, order = LABELLED_COLOURS[place], 2.4 if place == 0 else 1.3, 3 - place / 100
    (line,) = axes.plot(curve.epochs, curve.mean, "o-", color=colour, lw=width, ms=3, zorder=order)
    if curve.low != curve.high:
        axes.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    return line


def write_interactive(results: Sequence[TrialResult], metric: Metric, file: Path) -> None:
    """One page that needs no network: plotly itself is in it, once, which makes 5 MB."""
    drawn = [_interactive_coordinates(results, metric), _interactive_curves(results, metric)]
    figures = [figure for figure in drawn if figure is not None]
    settings = {"full_html": False, "config": {"displaylogo": False}}
    parts = [f.to_html(include_plotlyjs=place == 0, **settings) for place, f in enumerate(figures)]
    rows = table_rows(results, metric)
    lines = [_html_row("th", rows[0]), *(_html_row("td", row.values()) for row in rows)] if rows else []
    parts += [f"<p>{html.escape(note)}</p>" for note in notes(results, metric)]
    parts.append(f"<table>{''.join(lines)}</table>")
    title = f"{metric} of {len(results)} trial{'s' * (len(results) != 1)}"
    head = f"<meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    body = "\n".join(f"<div>{part}</div>" for part in parts)
    file.write_text(f"<!doctype html><html lang=en>{head}\n{body}</html>\n", encoding="utf-8")


def _interactive_coordinates(results: Sequence[TrialResult], metric: Metric) -> Any:
    """None for less than two axes: plotly would show nothing."""
    import plotly.graph_objects as go  # type: ignore[import-untyped]

    points = rank(results, metric)[::-1]
    scales = _scales(points, results, metric) if points else []
    if len(scales) < 2:
        return None
    dimensions = [
        {
            "label": html.escape(title),
            "values": scale.places,
            "range": [0, 1],
            "tickvals": [height for height, _ in scale.ticks],
            "ticktext": [html.escape(_cut(label, 18)) for _, label in scale.ticks],
        }
        for title, scale in scales
    ]
    colours = {"color": scales[-1][1].places, "cmin": 0, "cmax": 1, "colorscale": COLOURS[metric]}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=colours))
    width = max(900, 150 * len(scales))
    return figure.update_layout(height=480, width=width, margin={"l": 130, "r": 90, "t": 70, "b": 40})


def _interactive_curves(results: Sequence[TrialResult], metric: Metric) -> Any:
    import plotly.graph_objects as go

    best, others = _curves(results, metric)
    if not best + others:
        return None
    figure = go.Figure()
    if others:  # one trace, with gaps in between: a browser takes seconds for a thousand
        epochs = [epoch for curve in others for epoch in [*curve.epochs, None]]
        means = [mean for curve in others for mean in [*curve.mean, None]]
        names = [html.escape(curve.label) for curve in others for _ in [*curve.epochs, None]]
        grey = {"color": OTHERS_COLOUR, "width": 1}
        figure.add_scatter(x=epochs, y=means, text=names, mode="lines", line=grey, name="other trials")
    for curve in best:
        name = html.escape(curve.label)
        figure.add_scatter(x=curve.epochs, y=curve.mean, mode="lines+markers", name=name)
    figure.update_xaxes(title="epoch").update_yaxes(title=metric, range=_range(best) if best else None)
    return figure.update_layout(height=480, width=1100, template="plotly_white", showlegend=True)


def _html_row(cell: str, texts: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{html.escape(text)}</{cell}>" for text in texts) + "</tr>\n"


def _scales(
    points: Sequence[Ranked], results: Sequence[TrialResult], metric: Metric
) -> list[tuple[str, Scale]]:
    """A titled axis for each knob that varies among the points, then the metric's."""
    knobs = _knobs([point.knobs for point in points], results)
    scales = [_scale([point.knobs.get(knob, GAP) for point in points]) for knob in knobs]
    scales.append(_metric_scale([point.validation.mean for point in points], metric))
    names = [_cut(title, 24) for title in [*titles(knobs), metric]]
    return [(n + (" (log)" if s.log else ""), s) for n, s in zip(names, scales, strict=True)]


def _knobs(rows: Sequence[Mapping[str, str]], results: Sequence[TrialResult]) -> list[str]:
    return [knob for knob in varying(results) if len({row.get(knob, GAP) for row in rows}) > 1]


def _scale(values: Sequence[str]) -> Scale:
    """Numbers by size, text by first appearance; a gap stands at the foot, apart."""
    present = [value for value in dict.fromkeys(values) if value != GAP]
    numbers = [number for value in present if (number := _number(value)) is not None]
    is_text = len(numbers) < len(present)
    scale = _number_scale([float(n) for n in range(len(present))] if is_text else numbers)
    ticks = list(zip(scale.places, present, strict=True))
    if not is_text and len(present) > MAX_TICKS:
        ticks = scale.ticks
    foot = GAP_HEIGHT if GAP in values else 0.0
    place = {v: foot + (1 - foot) * p for v, p in zip(present, scale.places, strict=True)} | {GAP: 0.0}
    ticks = [(foot + (1 - foot) * height, label) for height, label in ticks] + [(0.0, GAP)] * bool(foot)
    return Scale(places=[place[v] for v in values], ticks=_apart(ticks), is_text=is_text, log=scale.log)


def _number_scale(numbers: Sequence[float]) -> Scale:
    """With six even ticks; by ratio over two decades or more, and where one ratio separates all."""
    log = _grow_by_ratio(sorted(set(numbers)))
    heights = [math.log10(number) if log else number for number in numbers]
    low, span = min(heights), max(heights) - min(heights)
    places = [(height - low) / span if span else 0.5 for height in heights]
    marks = [mark / 5 for mark in range(6)] if span else [0.5]
    texts = [f"{10 ** (low + span * mark) if log else low + span * mark:.4g}" for mark in marks]
    return Scale(places=places, ticks=list(zip(marks, texts, strict=True)), is_text=False, log=log)


def _metric_scale(values: Sequence[float], metric: Metric) -> Scale:
    """One diverged trial must not press all others together: outliers stand at the worst end.

    An outlier is worse than Tukey's fence, 1.5 interquartile ranges beyond the quartile.
    """
    lower, upper = np.quantile(values, [0.25, 0.75])
    fence = 1.5 * (upper - lower) or math.inf
    is_accuracy = metric == "validation/accuracy"
    held = np.maximum(values, lower - fence) if is_accuracy else np.minimum(values, upper + fence)
    scale = _number_scale(held.tolist())
    if held.tolist() == list(values):
        return scale
    end, sign = (0, "≤") if is_accuracy else (-1, "≥")
    ticks = list(scale.ticks)
    ticks[end] = (ticks[end][0], f"{sign} {ticks[end][1]}")
    return replace(scale, ticks=ticks)


def _grow_by_ratio(numbers: Sequence[float]) -> bool:
    """Two decades or more with half the numbers in the lowest quarter, or like 16, 32, 64."""
    if numbers[0] <= 0 or numbers[-1] / numbers[0] < 4:
        return False
    if numbers[-1] / numbers[0] >= 100 and statistics.median(numbers) <= numbers[-1] / 4:
        return True
    steps = np.diff(np.log10(numbers))
    return len(steps) > 1 and bool(np.ptp(steps) < 0.05 * steps.mean())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those that do not overlap, always with the lowest and the highest."""
    lowest, *others = sorted(ticks)
    kept = [lowest]
    for tick in others:
        if tick[0] - kept[-1][0] >= 0.045:
            kept.append(tick)
    return [*kept[:-1], max(ticks)] if len(kept) > 1 else kept


def _importances(columns: Mapping[str, Sequence[str]], values: Sequence[float]) -> dict[str, float]:
    """Numbers enter as places on their axis, so that a log axis counts by ratio."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    distributions: dict[str, BaseDistribution] = {}
    params: dict[str, Sequence[float | str]] = {}
    for knob, texts in columns.items():
        scale = _scale(texts)
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


def _curves(results: Sequence[TrialResult], metric: Metric) -> tuple[list[Curve], list[Curve]]:
    """The best points, best first, to be labelled, and all others; each unranked trial is one."""
    ranked = rank(results, metric)
    best: list[Curve] = []
    others: list[Curve] = []
    for place, point in enumerate(ranked, start=1):
        if curve := _curve(f"{place}. {_name(point)}", point.trials, metric):
            (best if len(best) < len(LABELLED_COLOURS) else others).append(curve)
    used = {trial.number for point in ranked for trial in point.trials}
    left = [_curve(f"{r.state} {r.name}", [r], metric) for r in results if r.number not in used]
    return best, others + [curve for curve in left if curve]


def _curve(label: str, trials: Sequence[TrialResult], metric: Metric) -> Curve | None:
    """None without a finite value."""
    pairs = sorted((epoch, value) for t in trials for epoch, value in t.history.get(metric, []))
    by_epoch: dict[int, list[float]] = {}
    for epoch, value in pairs:
        if math.isfinite(value):
            by_epoch.setdefault(epoch, []).append(value)
    if not by_epoch:
        return None
    mean, low, high = (
        [f(values) for values in by_epoch.values()] for f in (statistics.fmean, min, max)
    )
    return Curve(label, list(by_epoch), mean, low, high)


def _range(curves: Sequence[Curve]) -> tuple[float, float]:
    """With a margin; what diverged and is not among the curves stays outside."""
    low, high = min(min(curve.low) for curve in curves), max(max(curve.high) for curve in curves)
    margin = (high - low) / 20 or 0.01
    return low - margin, high + margin


def _name(point: Ranked) -> str:
    """The trial's name; of several seeds without the seed, which stands in it as `seed=3`."""
    trial = point.trials[0]
    if point.n == 1:
        return _cut(trial.name, 40)
    parts = [part for part in trial.name.split() if part != f"seed={trial.swept.get('seed')}"]
    return " ".join([_cut(" ".join(parts), 40), f"({point.n} seeds)"]).strip()


def _cut(text: str, length: int) -> str:
    """Head and tail, for names often differ at their ends."""
    text = " ".join(text.split())
    tail = length // 3
    return text if len(text) <= length else f"{text[: length - tail - 1]}…{text[-tail:]}"


def _message(text: str) -> Figure:
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def _save(figure: Figure, file: Path) -> None:
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name with two dollar signs is no formula
    figure.savefig(file, dpi=110, metadata={"Software": None})
