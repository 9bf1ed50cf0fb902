"""From conf/ and overrides to values, with their sources."""

from pathlib import Path

import pytest

from digitlab.config.composition import compose, sources
from digitlab.errors import ConfigError
from digitlab.sweep.planning.plan import plan


def test_each_knob_names_the_file_or_override_that_set_it() -> None:
    found = sources(["experiment=tutorial_as_described", "seed=3"])
    assert found["model.name"] == ("logistic_regression", "conf/model/logistic_regression.yaml")
    assert found["data.mean"] == (0.0, "conf/experiment/tutorial_as_described.yaml")
    assert found["seed"] == (3, "override seed=3")
    assert found["device"] == ("auto", "conf/config.yaml")


def test_a_preset_built_on_a_preset_names_both() -> None:
    found = sources(["experiment=tutorial_as_written"])
    assert found["batch_size"] == (1, "conf/experiment/tutorial_as_written.yaml")
    assert found["epochs"] == (5, "conf/experiment/tutorial_as_described.yaml")


def test_every_source_is_known() -> None:
    assert all(source for _, source in sources(["model=cnn", "data=mnist"]).values())


def test_a_typo_in_a_file_is_refused_with_its_path(home: Path) -> None:
    (home / "conf" / "optimizer" / "adam.yaml").write_text("name: adam\nlearning_rat: 0.1\n")
    with pytest.raises(ConfigError) as caught:
        compose([])
    assert "unknown knob optimizer.learning_rat; did you mean optimizer.learning_rate?" in str(
        caught.value
    )
    assert "optimizer.learning_rate is missing: it must be a number > 0" in str(caught.value)


def test_a_broken_yaml_file_is_one_line(home: Path) -> None:
    (home / "conf" / "optimizer" / "adam.yaml").write_text("name: [adam\n")
    with pytest.raises(ConfigError, match=r"conf/optimizer/adam.yaml: it is no YAML: .*line 1"):
        compose([])


def test_no_preset_can_be_asked_for() -> None:
    assert compose(["experiment=null", "seed=1"]) == compose(["seed=1"])


def write_preset(home: Path, content: str, name: str = "mine") -> str:
    (home / "conf" / "experiment" / f"{name}.yaml").write_text(content, encoding="utf-8", newline="")
    return f"experiment={name}"


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return caught.value.problems


def test_a_byte_order_mark_and_line_ends_of_another_system_are_heeded(home: Path) -> None:
    chosen = write_preset(home, "\ufeff# @package _global_\r\nepochs: 7\r\n")
    assert compose([chosen]).epochs == 7
    assert sources([chosen])["epochs"] == (7, "conf/experiment/mine.yaml")


def test_a_preset_of_any_group_that_names_no_package_is_told_the_line(home: Path) -> None:
    (home / "conf" / "homework").mkdir()
    (home / "conf" / "homework" / "one.yaml").write_text(
        "# a comment first\n# @package _global_\nseed: 1\n"
    )
    line = "must begin with the line `# @package _global_`"
    assert problems(write_preset(home, "epochs: 7\n")) == [f"conf/experiment/mine.yaml {line}"]
    assert problems("homework=one") == [f"conf/homework/one.yaml {line}"]
    write_preset(home, "# @package _global_ x\nepochs: 7\n")
    assert "Too many components in '@package _global_ x'" in problems("experiment=mine")[0]


def test_a_value_in_a_file_is_read_as_on_the_command_line(home: Path) -> None:
    values = {"seed": "010", "epochs": "1:30", "batch_size": "0x10", "record.mlflow_model": "yes"}
    body = "seed: 010\nepochs: 1:30\nbatch_size: 0x10\nrecord: {mlflow_model: yes}\n"
    chosen = write_preset(home, f"# @package _global_\n{body}")
    typed = problems(*(f"{knob}={value}" for knob, value in values.items()))
    assert problems(chosen) == typed
    assert "seed must be an integer in [0, 9223372036854775808), got '010'" in typed
    chosen = write_preset(home, "# @package _global_\noptimizer: {learning_rate: 1e-3}\nstudy: no\n")
    assert (compose([chosen]).optimizer.learning_rate, compose([chosen]).study) == (0.001, "no")
    for text in ("12e34", "true", "1.50", "7"):
        assert compose([write_preset(home, f"# @package _global_\nstudy: {text}\n")]).study == text


def test_a_preset_may_have_a_number_for_a_name(home: Path) -> None:
    for name in ("007", "1e5", "true"):
        assert compose([write_preset(home, "# @package _global_\nseed: 3\n", name)]).seed == 3


@pytest.mark.parametrize("group", ["model", "optimizer", "scheduler"])
def test_a_file_left_over_from_a_class_that_is_gone_is_one_line(home: Path, group: str) -> None:
    (home / "conf" / group / "old.yaml").write_text("name: old\nhidden_units: 128\n")
    (problem,) = problems(f"{group}=old")
    assert problem.startswith(f"{group}.name must be one of ")
    assert f"got 'old': no {group} of that name is registered here: install its package" in problem


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("hydra.job.name=x", "run_name=NAME names a run, sweep.name=NAME a sweep"),
        ("hydra.launcher.n_jobs=4", "workers=N does it"),
        ("+hydra.launcher.n_jobs=4", "workers=N does it"),
        ("hydra.sweeper.sampler.seed=1", "sweep.search=tpe does it"),
        ("hydra/launcher=joblib", "executor=processes or executor=inprocess does it"),
        ("hydra/sweeper=optuna", "sweep.search=grid|random|tpe|gp|cmaes does it"),
        ("hydra.verbose=true", "digitlab composes with Hydra, and runs trials itself"),
    ],
)
def test_a_setting_of_hydras_that_nothing_reads_is_refused(override: str, told: str) -> None:
    assert problems(override) == [f"{override} has no effect: {told}"]
    with pytest.raises(ConfigError) as caught:
        plan(["seed=0,1", override])
    assert caught.value.problems == [f"{override} has no effect: {told}"]
