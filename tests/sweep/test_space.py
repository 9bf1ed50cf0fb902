"""What a sweep varies: grids, rows, concatenation, exclusion, spaces; nothing is lost silently."""

import itertools
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from digitlab.config.composition import composer
from digitlab.errors import ConfigError
from digitlab.sweep.planning.plan import plan
from digitlab.sweep.planning.space import Point, grid_points, read_line, shown_name
from digitlab.sweep.settings import to_settings


def points(*overrides: str) -> list[Point]:
    with composer() as made:
        line = read_line(overrides, made)
        return grid_points(to_settings(made.compose_sweep(line.settings)), line, made)


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(overrides)
    return caught.value.problems


def write_sweep(home: Path, text: str, name: str = "mine") -> None:
    file = home / "conf" / "sweep" / f"{name}.yaml"
    file.write_text("defaults: [default, _self_]\n" + text)


@pytest.mark.parametrize(
    "line",
    [
        ["seed=1,2,3", "model=cnn,logistic_regression"],
        ["optimizer.learning_rate=0.1,1e-2", "seed=range(0,6,2)"],
        ["seed=choice(3,1,2)", "batch_size=sort(64,16,32)", "epochs=3"],
        ["optimizer.nesterov=true,false", "model=glob(*)"],
        ["optimizer.learning_rate=range(0.1,0.5,0.1)"],
    ],
)
def test_the_command_line_means_what_it_means_to_hydra(line: list[str]) -> None:
    with composer():
        from hydra.core.global_hydra import GlobalHydra

        loader = GlobalHydra.instance().config_loader()
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(line)
        (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    fixed = [text for text in line if not any(mark in text for mark in ",(")]
    ours = [{*(f"{k}={v}" for k, v in p.items()), *fixed} for p in points(*line)]
    assert ours == [set(trial) for trial in batch]


def test_rows_are_not_products(home: Path) -> None:
    write_sweep(home, "zip: {epochs: [1, 2, 3], batch_size: [8, 16, 32]}\n")
    rows = [(p["epochs"], p["batch_size"], p["seed"]) for p in points("sweep=mine", "seed=0,1")]
    expected = [("1", "8"), ("2", "16"), ("3", "32")]
    assert rows == [(*row, seed) for row, seed in itertools.product(expected, "01")]


def test_rows_of_unequal_length_are_refused(home: Path) -> None:
    write_sweep(home, "zip: {epochs: [1, 2, 3], batch_size: [8, 16]}\n")
    (problem,) = problems("sweep=mine")
    assert "needs lists of the same length, got epochs 3, batch_size 2" in problem


def test_blocks_follow_one_another_and_each_excludes_its_own(home: Path) -> None:
    write_sweep(
        home,
        """concat:
  - grid: {optimizer: [sgd, adam], seed: [0, 1]}
    exclude: [{optimizer: sgd, seed: 1}]
  - grid: {optimizer: rmsprop}
    zip: {seed: [5, 6], epochs: [1, 2]}
""",
    )
    assert [shown_name(p) for p in points("sweep=mine")] == [
        "sgd seed=0",
        "adam seed=0",
        "adam seed=1",
        "seed=5 epochs=1 rmsprop",
        "seed=6 epochs=2 rmsprop",
    ]


def test_exclusion_compares_values_not_spelling(home: Path) -> None:
    write_sweep(home, "grid: {seed: [0, 1]}\nexclude: [{optimizer.learning_rate: 0.001, seed: 1}]\n")
    left = points("sweep=mine", "optimizer.learning_rate=1e-3,0.1")
    assert len(left) == 3
    assert {"seed": "1", "optimizer.learning_rate": "1e-3"} not in left


def test_an_exclusion_that_excludes_nothing_is_a_mistake(home: Path) -> None:
    write_sweep(home, "grid: {seed: [0, 1]}\nexclude: [{seed: 7}]\n")
    (problem,) = problems("sweep=mine")
    assert "no combination has seed=7" in problem


def test_spaced_values_are_round(home: Path) -> None:
    write_sweep(
        home,
        """grid:
  optimizer.learning_rate: {low: 1.0e-4, high: 1.0, num: 5, log: true}
  model.hidden_units: {low: 16, high: 256, num: 5, log: true}
""",
    )
    found = points("sweep=mine", "model=cnn")
    rates = list(dict.fromkeys(p["optimizer.learning_rate"] for p in found))
    assert rates == ["0.0001", "0.001", "0.01", "0.1", "1.0"]
    assert list(dict.fromkeys(p["model.hidden_units"] for p in found)) == [
        "16",
        "32",
        "64",
        "128",
        "256",
    ]


def test_an_axis_in_a_file_may_be_written_as_on_the_command_line(home: Path) -> None:
    write_sweep(home, 'grid: {seed: "range(3)", batch_size: "16,32"}\n')
    assert len(points("sweep=mine")) == 6


def test_the_command_line_has_the_last_word_about_a_knob_of_the_grid(home: Path) -> None:
    write_sweep(home, "grid: {seed: [0, 1, 2], epochs: [1, 2]}\n")
    assert points("sweep=mine", "seed=5", "epochs=7,8") == [{"epochs": "7"}, {"epochs": "8"}]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["seed=1,1"], "trial 1 is the same as trial 0 (seed=1): leave one out"),
        (["seed=range(3,3)"], "seed=range(3,3) has no value at all"),
        (["study=a,b"], "study cannot be swept"),
        (["tracking=local,server"], "tracking cannot be swept"),
        (["seed=1,2", "trials=5"], "sweep.trials=5 needs a search"),
        (["seed=1,2", "sweep.pruner=median"], "sweep.pruner=median needs a search"),
        (["optimizer.learning_rate=interval(0.1,1)"], "is an interval: that needs a search"),
        (["sweep.search=tpe", "seed=1,2"], "sweep.search=tpe needs sweep.trials"),
        (["sweep.search=tpe", "trials=3"], "nothing to choose from"),
        (
            ["sweep.search=cmaes", "trials=3", "model=cnn,logistic_regression"],
            "numbers only, not model",
        ),
        (
            ["sweep.search=bayes", "trials=3"],
            "sweep.search must be one of grid, random, tpe, gp, cmaes",
        ),
        (["sweep.metric=test/accuracy", "seed=1,2"], "choosing by the test split would make its score"),
        (["sweep.serach=tpe"], "unknown setting sweep.serach; did you mean sweep.search?"),
        (["seed=1,2", "workers=0"], "executor.workers must be an integer in [1, 1024], or null"),
        (
            ["seed=1,2", "executor=k8s"],
            "executor must be one of dask, inprocess, processes, slurm, got k8s",
        ),
        (["seed=1,2", "repeats=3"], "sweep.repeats sets the seeds"),
        (["sweep=search", "repeats=3"], "sweep.pruner=median needs sweep.repeats=1"),
        (
            ["sweep=search", "optimizer.beta_1=interval(0.5,2)"],
            "optimizer.beta_1 must be a number in [0",
        ),
        (["sweep=search", "optimizer.beta_1=interval(0.5,0.2)"], "needs low < high"),
    ],
)
def test_what_makes_no_sense_is_refused(line: list[str], told: str) -> None:
    assert any(told in problem for problem in problems(*line)), problems(*line)


def test_every_bad_trial_is_told_and_what_is_wrong_with_all_of_them_once() -> None:
    told = problems("model=cnn,logistic_regression", "model.channels_1=4,0", "epochs=0")
    assert "epochs must be an integer in [1, 1000000], got 0" in told
    assert sum("trial 2 (logistic_regression channels_1=4): model.channels_1" in p for p in told) == 1
    assert sum("trial 1 (cnn channels_1=0): model.channels_1 must be" in p for p in told) == 1
    assert sum("epochs" in p for p in told) == 1


def test_a_trial_of_another_group_has_the_knobs_of_that_group() -> None:
    trials = plan(["optimizer=sgd,adam", "seed=0"]).trials
    assert "momentum" in trials[0].values["optimizer"]
    assert "beta_1" in trials[1].values["optimizer"]


def test_seeds_are_repeated_from_the_points_own() -> None:
    manifest = plan(["optimizer.learning_rate=0.1,0.01", "repeats=3", "seed=10"])
    assert [(t.point, t.values["seed"], t.name) for t in manifest.trials] == [
        (0, 10, "lr=0.1 seed=10"),
        (0, 11, "lr=0.1 seed=11"),
        (0, 12, "lr=0.1 seed=12"),
        (1, 10, "lr=0.01 seed=10"),
        (1, 11, "lr=0.01 seed=11"),
        (1, 12, "lr=0.01 seed=12"),
    ]


def test_swept_seeds_are_one_point_each() -> None:
    manifest = plan(["model=cnn,logistic_regression", "seed=0,1"])
    assert [trial.point for trial in manifest.trials] == [0, 0, 1, 1]


def test_a_whole_number_is_searched_in_whole_numbers() -> None:
    manifest = plan(["sweep.search=random", "trials=3", "batch_size=interval(8, 64)"])
    assert manifest.axes["batch_size"] == {"low": 8, "high": 64, "log": False}


def test_the_key_knows_what_is_run_not_how_nor_in_which_order() -> None:
    key = plan(["seed=1,2"]).key
    assert plan(["seed=2,1", "workers=7", "sweep.name=other"]).key == key
    assert plan(["seed=1,2", "executor=inprocess"]).key == key
    assert plan(["seed=1,2", "epochs=21"]).key != key
    assert plan(["seed=1,2", "study=elsewhere"]).key != key


def test_an_edited_default_is_another_sweep(home: Path) -> None:
    key = plan(["seed=1,2"]).key
    file = home / "conf" / "optimizer" / "adam.yaml"
    file.write_text(file.read_text().replace("0.001", "0.002"))
    assert plan(["seed=1,2"]).key != key


def test_points_of_every_block_name_whatever_differs(home: Path) -> None:
    write_sweep(
        home,
        "concat:\n"
        "  - grid: {optimizer.learning_rate: [0.01, 0.001], epochs: 20}\n"
        "  - grid: {model: cnn, model.channels_1: [8, 16], epochs: 3, batch_size: 64}\n",
    )
    trials = plan(["sweep=mine"]).trials
    assert [trial.name for trial in trials] == [
        "lr=0.01 epochs=20 logistic_regression",
        "lr=0.001 epochs=20 logistic_regression",
        "lr=0.001 epochs=3 cnn channels_1=8",
        "lr=0.001 epochs=3 cnn channels_1=16",
    ]


def test_a_fixed_knob_that_any_block_sweeps_is_refused(home: Path) -> None:
    write_sweep(home, "concat:\n  - grid: {seed: [0, 1]}\n  - grid: {epochs: 3}\n")
    assert problems("sweep=mine", "epochs=5") == [
        "epochs is both fixed on the command line and swept by conf/sweep/"
    ]


@pytest.mark.parametrize(
    "line",
    [
        ["optimizer.weight_decay=0,0.0"],
        ["optimizer.learning_rate=1,1.0"],
        ["optimizer.learning_rate=1e-3,0.1,0.001"],
        ["optimizer=sgd", "optimizer.momentum=0.5", "optimizer.nesterov=true,True"],
        ["data.root=/a,'/a'"],
        ["sweep.search=tpe", "trials=4", "optimizer.weight_decay=0,0.0"],
        ["sweep.search=tpe", "trials=4", "optimizer=adam,sgd,adam"],
    ],
)
def test_values_are_compared_as_the_schema_reads_them(line: list[str]) -> None:
    assert any("is the same as trial 0" in p or "has a choice twice" in p for p in problems(*line))


def test_blocks_that_meet_in_one_configuration_are_refused(home: Path) -> None:
    write_sweep(
        home,
        "concat:\n  - grid: {epochs: [20, 30]}\n  - grid: {optimizer.learning_rate: [0.001, 0.01]}\n",
    )
    assert problems("sweep=mine", "optimizer.learning_rate=0.001")  # fixed and swept
    assert "trial 2 is the same as trial 0 (lr=0.001 and epochs=20)" in problems("sweep=mine")[0]


def test_seeds_of_one_value_that_was_typed_in_two_ways_are_one_point(home: Path) -> None:
    write_sweep(
        home,
        "concat:\n"
        "  - grid: {optimizer.learning_rate: [0.001], seed: [0]}\n"
        "  - grid: {optimizer.learning_rate: '1e-3', seed: [1]}\n",
    )
    assert [trial.point for trial in plan(["sweep=mine"]).trials] == [0, 0]


def test_text_in_a_file_is_text_and_an_exclusion_compares_switches_too(home: Path) -> None:
    write_sweep(
        home,
        "grid: {data.root: ['null', 'a, b', \"it's\"]}\nexclude: [{optimizer.nesterov: true}]\n",
    )
    sgd = ["optimizer=sgd", "optimizer.momentum=0.5", "optimizer.nesterov=True,False"]
    trials = plan(["sweep=mine", *sgd]).trials
    assert [trial.values["data"]["root"] for trial in trials] == ["null", "a, b", "it's"]
    assert {trial.values["optimizer"]["nesterov"] for trial in trials} == {False}
