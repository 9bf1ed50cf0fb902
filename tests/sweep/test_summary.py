"""The end of a sweep: ranks and intervals against scipy and by hand, files read back by others."""

import csv
import dataclasses
import html.parser
import io
import math
import random
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from matplotlib.image import imread
from scipy import stats

from digitlab.config.kinds import Metric
from digitlab.results import curves, figures, scales, summary
from digitlab.results import page as interactive
from digitlab.results.trial_result import TrialResult

METRICS: tuple[Metric, Metric] = ("validation/accuracy", "validation/loss")
EVIL = "_x <b>&</b> $a$ | [relu] \n" + 30 * "long "


def trial(
    number: int, accuracy: float = 0.9, *, point: int | None = None, **changes: object
) -> TrialResult:
    """A finished trial of an epoch metric that climbs to its accuracy; its loss is 1 - accuracy."""
    made = TrialResult(
        number=number,
        point=number if point is None else point,
        name=f"a={number}",
        state="FINISHED",
        swept={"a": str(number)},
        run_id=f"{number:08x}" + 24 * "f",
        metrics={
            "chosen/validation_accuracy": accuracy,
            "chosen/validation_loss": 1 - accuracy,
            "test/accuracy": accuracy - 0.01,
        },
        history={
            "validation/accuracy": [(epoch, accuracy * (1 - 0.5**epoch)) for epoch in range(1, 6)],
            "validation/loss": [(epoch, 2 - accuracy - 0.1 * epoch) for epoch in range(1, 6)],
        },
        seconds=1.5,
    )
    return dataclasses.replace(made, **changes)


def order(results: list[TrialResult], metric: Metric = "validation/accuracy") -> list[int]:
    return [point.trials[0].number for point in summary.summarise(results, metric).ranked]


def varying(results: list[TrialResult]) -> list[str]:
    return summary.summarise(results, "validation/accuracy").knobs


def seeds(
    accuracies: list[float], *, point: int = 0, first: int = 0, **swept: str
) -> list[TrialResult]:
    return [
        trial(first + n, accuracy, point=point, swept={**swept, "seed": str(n)}, name=f"seed={n}")
        for n, accuracy in enumerate(accuracies)
    ]


def random_search(size: int) -> list[TrialResult]:
    """One knob of every kind: by ratio, even, text, of some trials only."""
    generator = random.Random(0)
    results = []
    for number in range(size):
        rate, model = 10 ** generator.uniform(-5, 0), generator.choice(["cnn", "mlp"])
        swept = {
            "model": model,
            "optimizer.learning_rate": repr(rate),
            "model.dropout": f"{generator.uniform(0, 0.5)}",
            **({"model.channels_1": generator.choice(["8", "16", "32"])} if model == "cnn" else {}),
        }
        accuracy = 0.98 - 0.05 * (math.log10(rate) + 2.5) ** 2
        results.append(trial(number, accuracy, swept=swept, name=f"trial {number}"))
    return results


HARD: dict[str, Callable[[], list[TrialResult]]] = {
    "none": list,
    "one": lambda: [trial(0)],
    "no varying knob": lambda: [trial(n, 0.9 + n / 100, swept={"a": "1"}) for n in range(3)],
    "seeds": lambda: seeds([0.9, 0.91], lr="1") + seeds([0.8, 0.85], point=1, first=2, lr="2"),
    "equal values": lambda: [trial(n, swept={"a": str(n), "b": str(n % 2)}) for n in range(5)],
    "no history": lambda: [trial(n, 0.9 + n / 100, history={}) for n in range(4)],
    "undefined": lambda: [
        trial(n, math.nan, history={"validation/accuracy": [(1, math.nan)]}) for n in range(3)
    ],
    "some undefined": lambda: [trial(n, [0.9, math.nan, math.inf, 0.8][n]) for n in range(4)],
    "failed and pruned": lambda: [
        trial(0),
        trial(1, 0.8),
        trial(2, state="FAILED", metrics={}, history={}, run_id=None, error="ValueError: a\nb"),
        trial(3, state="PRUNED", metrics={"validation/accuracy": 0.99}),
    ],
    "one collapsed": lambda: [trial(n, 0.1 if n == 3 else 0.97 + n / 1000) for n in range(16)],
    "no validation split": lambda: [
        trial(n, metrics={"test/accuracy": 0.9}, history={}) for n in range(3)
    ],
    "evil names": lambda: [
        trial(
            n,
            0.9 + n / 100,
            name=EVIL,
            swept={"b." + 9 * "long_knob_": EVIL + str(n), "c": "_$x$" * (n % 2)},
        )
        for n in range(5)
    ],
    "search": lambda: random_search(30),
    "thousand": lambda: random_search(1000),
}
hard = pytest.mark.parametrize(
    "results", [pytest.param(make(), id=name) for name, make in HARD.items()]
)


def test_the_best_has_the_highest_accuracy_or_the_lowest_loss_and_ties_go_by_number() -> None:
    results = [trial(3, 0.9), trial(0, 0.8), trial(2, 0.95), trial(1, 0.9)]
    results[1].metrics["chosen/validation_loss"] = 0.001
    assert order(results) == [2, 1, 3, 0]
    assert order(results, "validation/loss") == [0, 2, 1, 3]


def test_the_ranking_is_of_the_tested_weights_and_blind_to_the_test() -> None:
    results = [trial(n, 0.9 + n / 100) for n in range(4)]
    before = order(results)
    for result in results:
        result.metrics["test/accuracy"] = 1 - result.metrics["test/accuracy"]
        result.metrics["validation/accuracy"] = 0.5 - result.number / 100
    assert order(results) == before == [3, 2, 1, 0]


@pytest.mark.fault("F21")
def test_only_finished_trials_with_a_finite_value_are_ranked() -> None:
    states = ["FAILED", "PRUNED", "INTERRUPTED", "PENDING"]
    results = [trial(n, 0.99, state=state) for n, state in enumerate(states)]
    results += [trial(4, math.nan), trial(5, math.inf), trial(6, 0.5), trial(7, metrics={})]
    assert order(results) == order(results, "validation/loss") == [6]


def test_intervals_are_student_s_by_hand_and_scipy_s() -> None:
    accuracies = [0.90, 0.92, 0.97]
    (point,) = summary.summarise(seeds(accuracies), "validation/accuracy").ranked
    assert point.n == 3
    assert point.validation.mean == pytest.approx(0.93)
    # s = sqrt((0.03² + 0.01² + 0.04²) / 2), t(0.975, 2) = 4.302653
    assert point.validation.half_width == pytest.approx(4.302653 * math.sqrt(0.0013 / 3), rel=1e-6)
    low, high = stats.t.interval(0.95, 2, loc=0.93, scale=stats.sem(accuracies))
    assert point.validation.half_width == pytest.approx((high - low) / 2)
    assert point.test is not None
    assert (point.test.mean, point.test.half_width) == pytest.approx((0.92, (high - low) / 2))


def test_a_single_seed_has_no_interval_and_keeps_its_seed_as_a_knob() -> None:
    (point,) = summary.summarise(seeds([0.9], lr="0.1"), "validation/accuracy").ranked
    assert (point.n, point.validation.half_width, point.knobs) == (1, None, {"lr": "0.1", "seed": "0"})


def test_points_rank_by_their_mean_and_say_which_seeds_are_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = seeds([0.90, 0.92, math.nan], lr="0.1") + seeds([0.99, 0.7], point=1, first=3, lr="0.2")
    whole = summary.summarise(results, "validation/accuracy")
    first, second = whole.ranked
    assert first.knobs == {"lr": "0.1"}
    assert (first.n, first.planned, second.n, second.planned) == (2, 3, 2, 2)
    assert whole.knobs == ["lr"]
    summary.print_summary(whole)
    assert "2 of 3" in capsys.readouterr().out


def test_varying_knobs_take_several_values_and_come_in_the_sweep_s_order() -> None:
    rows = [{"z": "1", "same": "x", "a": "1"}, {"z": "2", "same": "x", "a": "1"}]
    rows += [
        {"z": "1", "same": "x", "a": "2", "some": "1"},
        {"z": "1", "same": "x", "a": "1", "some": "2"},
    ]
    assert varying([trial(n, swept=row) for n, row in enumerate(rows)]) == ["z", "a", "some"]
    assert varying(seeds([0.1, 0.2], lr="1")) == []
    assert varying([trial(n, swept={"seed": str(n)}) for n in range(2)]) == ["seed"]


def test_a_title_is_a_leaf_unless_two_knobs_would_share_it() -> None:
    knobs = ["optimizer.learning_rate", "model.name", "seed", "a.rate", "b.rate", "data.test"]
    assert summary.titles(knobs) == ["learning_rate", "model", "seed", "a.rate", "b.rate", "data.test"]


def test_the_printed_table_is_cut_by_its_limit_only(capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        trial(n, n / 100, swept={"model.activation": f"[relu] {300 * 'x'}{n}"}) for n in range(32)
    ]
    summary.print_summary(summary.summarise(results, "validation/accuracy"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "run", "activation", "validation", "test", "seconds"]
    expected = ["1", "0000001f", "[relu]", 300 * "x" + "31", "31.00", "%", "30.00", "%", "1.5"]
    assert lines[1].split() == expected
    assert (len(lines), lines[-1]) == (22, "… and 12 more")


def test_without_a_validation_split_the_trials_are_listed_and_nothing_is_ranked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = HARD["no validation split"]()
    whole = summary.summarise(results, "validation/loss")
    assert whole.ranked == []
    summary.print_summary(whole)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["-", f"{n:08x}"] for n in range(3)]
    assert lines[4:] == ["Nothing is ranked: there is no validation split (data.validation_size=0)."]


@hard
def test_the_csv_reads_back_with_every_trial_knob_and_metric(results: list[TrialResult]) -> None:
    rows = list(
        csv.DictReader(io.StringIO(summary.as_csv(summary.summarise(results, "validation/loss"))))
    )
    assert len(rows) == len(results)
    for row, result in zip(rows, results, strict=True):
        assert (row["number"], row["state"]) == (str(result.number), result.state)
        assert (row["run_id"], row["error"]) == (result.run_id or "", result.error or "")
        assert result.swept.items() <= row.items()
        for name, value in result.metrics.items():
            assert float(row[name]) == pytest.approx(value, rel=0, abs=0, nan_ok=True)


@hard
def test_markdown_has_as_many_cells_in_every_row(results: list[TrialResult]) -> None:
    whole = summary.summarise(results, "validation/accuracy")
    text = summary.as_markdown(whole).replace(r"\|", "")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == (1 if results else 0)
    assert sum(line.split()[1].isdigit() for line in table) == len(whole.ranked)


@pytest.mark.parametrize("metric", METRICS)
@hard
def test_every_figure_is_a_picture_whatever_the_trials(
    results: list[TrialResult], metric: Metric, tmp_path: Path
) -> None:
    drawn = [tmp_path / "coordinates.png", tmp_path / "curves.png", tmp_path / "importance.png"]
    whole = summary.summarise(results, metric)
    figures.draw_parallel_coordinates(whole, drawn[0])
    figures.draw_learning_curves(whole, drawn[1])
    if len(results) > 100 or not figures.draw_importance(whole, drawn[2]):  # 10 s for 1000
        assert not drawn.pop().exists()
    for file in drawn:
        pixels = imread(file)
        assert min(pixels.shape[:2]) > 100
        assert pixels.std() > 0, f"{file.name} is blank"


class Tags(html.parser.HTMLParser):
    """What a page has: attributes that load something, the rows of its table, its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.count = {"tr": 0, "b": 0, "script": 0}
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, _ in attributes if name in {"src", "href"}]
        if tag in self.count:
            self.count[tag] += 1


@hard
def test_the_page_loads_nothing_and_holds_plotly_once(
    results: list[TrialResult], tmp_path: Path
) -> None:
    file = tmp_path / "sweep.html"
    whole = summary.summarise(results, "validation/accuracy")
    interactive.write_page(whole, file)
    page = file.read_text(encoding="utf-8")
    tags = Tags(page)
    assert tags.loads == []
    assert tags.count["b"] == 0, "a name became markup"
    assert tags.count["tr"] == len(whole.rows) + bool(whole.rows)
    assert page.count("plotly.js v") == bool(tags.count["script"])


def test_a_knob_that_decides_everything_is_above_one_that_decides_nothing() -> None:
    grid = [(rate, size, name) for rate in (1e-4, 1e-3, 1e-2) for size in (16, 32) for name in "xyz"]
    swept = [{"lr": str(rate), "size": str(size), "name": name} for rate, size, name in grid]
    knobs = {knob: [row[knob] for row in swept] for knob in ("lr", "size", "name")}
    by_rate = figures.importances(knobs, [math.log10(rate) for rate, _, _ in grid])
    assert by_rate["lr"] > 0.95
    by_name = figures.importances(knobs, [float(name == "y") for _, _, name in grid])
    assert by_name["name"] > 0.95
    assert sum(by_name.values()) == pytest.approx(1)


def test_importance_is_drawn_for_four_values_and_two_knobs_or_not_at_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    swept = [{"a": str(n % 2), "b": str(n // 2)} for n in range(4)]
    results = [trial(n, 0.9 + n / 100, swept=row) for n, row in enumerate(swept)]
    verbosity = optuna.logging.get_verbosity()

    def is_drawn(results: list[TrialResult]) -> bool:
        whole = summary.summarise(results, "validation/accuracy")
        return figures.draw_importance(whole, tmp_path / "importance.png")

    assert is_drawn(results)
    assert not is_drawn(results[:3])
    assert not is_drawn([dataclasses.replace(r, swept={"a": r.swept["a"]}) for r in results])
    assert not is_drawn([trial(n, swept=row) for n, row in enumerate(swept)])
    repeated = [
        dataclasses.replace(r, point=r.number // 2, swept={"a": str(r.point), "seed": "1"})
        for r in results
    ]
    assert not is_drawn(repeated), "the seed of a repeated point is no knob"
    assert optuna.logging.get_verbosity() == verbosity
    assert capfd.readouterr() == ("", "")


def test_axes_are_by_ratio_for_rates_even_for_shares_and_keep_text_and_gaps_apart() -> None:
    assert scales.knob_scale(["0.1", "0.001", "0.01"]).places == pytest.approx([1, 0, 0.5])
    assert scales.knob_scale(["64", "16", "32"]).places == pytest.approx([1, 0, 0.5])
    assert scales.knob_scale(["0.5", "0", "0.1"]).places == pytest.approx([1, 0, 0.2])
    text = scales.knob_scale(["sgd", "adam", "sgd", "rmsprop"])
    assert (text.is_text, text.places) == (True, [0, 0.5, 0, 1])
    gap = scales.knob_scale(["8", scales.GAP, "16"])
    assert gap.places == [scales.GAP_HEIGHT, 0, 1]
    assert gap.ticks == [(0, scales.GAP), (scales.GAP_HEIGHT, "8"), (1, "16")]


def test_a_curve_is_the_mean_of_the_seeds_that_reached_the_epoch() -> None:
    short = {"validation/loss": [(1, 1.0), (2, 3.0)]}
    long = {"validation/loss": [(1, 2.0), (2, math.nan), (3, 4.0)]}
    pair = [trial(0, point=0, history=short), trial(1, point=0, history=long)]
    (best,), others = curves.best_and_others(summary.summarise(pair, "validation/loss"))
    assert others == []
    assert (best.epochs, best.mean) == ([1, 2, 3], [1.5, 3.0, 4.0])
    assert (best.low, best.high) == ([1.0, 3.0, 4.0], [2.0, 3.0, 4.0])


def test_one_collapsed_trial_does_not_press_the_others_together() -> None:
    # Quartiles 0.97 and 0.98, so Tukey's fence is at 0.97 - 1.5 * 0.01.
    scale = scales.metric_scale([0.97, 0.975, 0.98, 0.985, 0.1], "validation/accuracy")
    assert scale.places == pytest.approx([3 / 6, 4 / 6, 5 / 6, 1, 0])
    assert scale.ticks[0] == (0, "≤ 0.955")
    turned = scales.metric_scale([0.03, 0.025, 0.02, 0.015, 0.9], "validation/loss")
    assert turned.places == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0, 1])
    assert turned.ticks[-1] == (1, "≥ 0.045")
