"""From conf/ and overrides to values, with their sources."""

from pathlib import Path

import pytest

from digitlab.composition import compose, sources
from digitlab.errors import ConfigError


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
    with pytest.raises(ConfigError, match="conf/ does not compose"):
        compose([])


def test_no_preset_can_be_asked_for() -> None:
    assert compose(["experiment=null", "seed=1"]) == compose(["seed=1"])
