"""The two charts of `make bench-peers`, from results.json. Draws with matplotlib's Figure alone."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from digitlab.runs.plots import save
from tests.benchmarks.peers import summary
from tests.benchmarks.peers.contestants import ACCURACY, LOGISTIC, OURS

TRIALS, ACCURACIES = "trials.png", "accuracy.png"
OWN_COLOUR, PEER_COLOUR = "C0", "0.65"


def draw(results: summary.Results, folder: Path) -> list[Path]:
    """Those of which something was measured."""
    made = []
    if any(rate for _, rate in trials_a_minute(results)):
        made.append(folder / TRIALS)
        draw_trials(results, made[-1])
    if summary.names(results, ACCURACY):
        made.append(folder / ACCURACIES)
        draw_accuracy(results, made[-1])
    return made


def trials_a_minute(results: summary.Results) -> list[tuple[str, float]]:
    """The fastest last, as bars are drawn from below."""
    rates = []
    for name in summary.names(results, LOGISTIC):
        step = summary.increment(summary.walls(results, name, LOGISTIC))
        if step:
            rates.append((name, 60 / step))
    return sorted(rates, key=lambda each: each[1])


def draw_trials(results: summary.Results, file: Path) -> None:
    rates = trials_a_minute(results)
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(rates)), layout="constrained")
    axes = figure.subplots()
    colours = [OWN_COLOUR if name == OURS else PEER_COLOUR for name, _ in rates]
    bars = axes.barh(range(len(rates)), [rate for _, rate in rates], color=colours)
    axes.set_yticks(range(len(rates)), [name for name, _ in rates])
    axes.bar_label(bars, [f"{rate:.0f}" for _, rate in rates], padding=3)
    axes.margins(x=0.1)
    axes.set(xlabel="recorded trials a minute: logistic regression, 5 epochs of MNIST")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_where(results), fontsize=9)
    save(figure, file)


def draw_accuracy(results: summary.Results, file: Path) -> None:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    markers, colours = iter("osD^v"), iter(("C1", "C2", "C3", "C4"))
    for name, unit, points in summary.accuracy_points(results):
        seconds, values = [each[1] for each in points], [each[2] for each in points]
        own = name == OURS
        axes.plot(
            *(seconds, values, f"{next(markers)}-"),
            color=OWN_COLOUR if own else next(colours),
            lw=2.4 if own else 1.3,
            label=f"{name} ({unit})",
        )
        for size, second, value in points:
            axes.annotate(
                str(size),
                (second, value),
                xytext=(0, 6),
                textcoords="offset points",
                fontsize=8,
                ha="center",
            )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.set(xlabel="seconds from the command to its end", ylabel="test accuracy", xlim=(0, None))
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    axes.set_title(f"one logistic regression on MNIST; {_where(results)}", fontsize=9)
    save(figure, file)


def _where(results: summary.Results) -> str:
    tried = "A TRY-OUT, NO MEASUREMENT; " if results["small"] else ""
    return f"{tried}{results['machine']['cpu']}, {results['machine']['cores']} cores"
