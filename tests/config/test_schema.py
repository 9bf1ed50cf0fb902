"""The schema: what it accepts, what it refuses, and how it says so."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitlab.config import data_schema, project, schema
from digitlab.config.checking import to_config, to_dict
from digitlab.config.composition import compose
from digitlab.config.knobs import knobs, nearest
from digitlab.config.overrides import SWEEP_GROUPS
from digitlab.config.schema import Config
from digitlab.errors import ConfigError
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.planning.plan import plan
from tests.support.pictures import write_every_form


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return caught.value.problems


def test_every_choice_of_every_group_composes() -> None:
    for group, choices in project.groups().items():
        for choice in choices:
            if group in SWEEP_GROUPS:
                plan([f"{group}={choice}"])
                continue
            place = ["data.path=x"] if choice in data_schema.FORMS else []
            chosen = getattr(compose([f"{group}={choice}", *place]), group, None)
            assert getattr(chosen, "name", choice) == choice


@pytest.mark.parametrize("name", sorted(f.stem for f in Path("conf/experiment").glob("*.yaml")))
def test_every_preset_composes_and_says_its_command(name: str) -> None:
    compose([f"experiment={name}"])
    assert f"digitlab train experiment={name}" in Path(f"conf/experiment/{name}.yaml").read_text()


def test_a_configuration_survives_the_way_to_plain_values_and_back() -> None:
    config = compose(["model=cnn", "scheduler=one_cycle", "seed=7"])
    assert to_config(to_dict(config)) == config


@pytest.mark.fault("F15", "F16")
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("epochs=0", "epochs must be an integer in [1, 1000000], got 0"),
        ("seed=-1", "seed must be an integer in [0, 9223372036854775808), got -1"),
        ("seed=1.5", "seed must be an integer in [0, 9223372036854775808), got 1.5"),
        ("seed=true", "seed must be an integer in [0, 9223372036854775808), got true"),
        ("seed=null", "seed must be an integer in [0, 9223372036854775808), got null"),
        ("threads=0", "threads must be an integer in [1, 1024], got 0"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate must be a number > 0, got nan"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate must be a number > 0, got inf"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate must be a number > 0, got -1"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate must be a number > 0, got 'fast'"),
        ("optimizer.lr=1", "unknown knob optimizer.lr; did you mean optimizer.learning_rate?"),
        ("+optimizer.lr=1", "unknown knob optimizer.lr; did you mean optimizer.learning_rate?"),
        ("++lr=1", "unknown knob lr; did you mean optimizer.learning_rate?"),
        ("+anything=1", "unknown knob anything: `digitlab config --knobs` lists all"),
        ("device=gpu", "device must be one of auto, cpu, cuda, got 'gpu'"),
        ("model=cn", "model must be one of cnn, logistic_regression, got cn; did you mean model=cnn?"),
        ("modle=cnn", "unknown group modle; did you mean model?"),
        (
            "model.channels_1=3",
            "model.channels_1 is a knob of model=cnn, not of model=logistic_regression",
        ),
        ("~seed", "~seed: knobs cannot be removed, only set"),
        ("study=''", "study must be text of 1 to 200 characters, got ''"),
        ("epochs", "'epochs' is no override: write knob=value, such as epochs=20"),
        ("foo.bar=1", "unknown knob foo.bar: `digitlab config --knobs` lists all"),
        ("model.name=cnn", "model.name cannot be set by itself: choose it with model=NAME"),
        (
            "batch_size=1258",
            "batch_size must be at most the 1257 training images of digits, got 1258",
        ),
        (
            "data.validation_size=1437",
            "data.validation_size must be less than the 1437 training images of digits, got 1437",
        ),
        (
            "run_name=${oc.env:HOME}",
            "run_name must be a plain value, got the interpolation '${oc.env:HOME}'",
        ),
    ],
)
def test_a_wrong_knob_is_refused_with_path_range_value_and_suggestion(
    override: str, sentence: str
) -> None:
    assert problems(override) == [sentence]


@pytest.mark.fault("F15")
def test_every_problem_is_told_at_once() -> None:
    found = problems("epochs=0", "+foo=1", "model=cn", "optimizer.momentum=2", "seed=1,2", "x===")
    assert len(found) == 1, "grammar first: the rest cannot be read reliably"
    found = problems("epochs=0", "+foo=1", "model=cn", "optimizer.momentum=2", "seed=1,2")
    assert len(found) == 5
    for part in ("epochs", "foo", "model", "optimizer.momentum", "seed=1,2"):
        assert any(part in sentence for sentence in found)


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["data.validation_size=0", "early_stopping.patience=2"], "early_stopping.patience needs"),
        (["data.validation_size=0", "checkpoint.weights=best"], "checkpoint.weights=best needs"),
        (["optimizer=sgd", "optimizer.nesterov=true"], "optimizer.nesterov needs optimizer.momentum"),
    ],
)
def test_knobs_that_contradict_each_other_are_refused(overrides: list[str], part: str) -> None:
    assert part in problems(*overrides)[0]


def test_seed_zero_false_and_empty_are_values() -> None:
    config = compose(["seed=0", "record.mlflow_model=false", "run_name=null"])
    assert (config.seed, config.record.mlflow_model, config.run_name) == (0, False, None)


def test_text_stays_the_text_that_was_typed() -> None:
    config = compose(["run_name=007", "study=2024_01"])
    assert (config.run_name, config.study) == ("007", "2024_01")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "optimizer.learning_rate"),
        ("wd", "optimizer.weight_decay"),
        ("bs", "batch_size"),
        ("batchsize", "batch_size"),
        ("epoch", "epochs"),
        ("model.chanels_1", "model.channels_1"),
    ],
)
def test_the_nearest_knob_is_found(typed: str, meant: str) -> None:
    assert nearest(typed, knobs()) == meant


def test_every_knob_says_what_it_means_and_allows() -> None:
    for knob in knobs().values():
        assert knob.allowed
        assert knob.help or knob.path.endswith(".name"), knob.path


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "model", "optimizer", "_target_", "seed", "data", "${x}"]), inner
        )
    ),
    max_leaves=10,
)


@pytest.mark.fault("F16")
@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Config)]), plain))
@settings(max_examples=300, deadline=None)
def test_plain_values_of_any_kind_are_accepted_or_refused_but_never_break(values: Any) -> None:
    with pytest.raises(ConfigError):
        to_config(values)


@pytest.mark.fault("F22")
@pytest.mark.parametrize("payload", ["_target_", "model._target_", "data._partial_", "_args_"])
def test_no_knob_can_name_code_to_run(payload: str) -> None:
    assert f"unknown knob {payload}" in problems(f"+{payload}=os.system")[0], payload


def test_every_knob_is_read_by_something(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """Runs every choice of these groups, noting which fields code outside the schema reads."""
    from digitlab.runs.describe import request_run
    from digitlab.runs.experiment import Session, run_experiment
    from digitlab.runs.progress import TrainingProgress

    read: set[tuple[str, str]] = set()
    classes = [
        cls
        for name, cls in {**vars(schema), **vars(data_schema)}.items()
        if name.endswith("Config") and not name.startswith("Own") and dataclasses.is_dataclass(cls)
    ]

    def caller_is_digitlab(frame: FrameType | None) -> bool:
        name = frame.f_globals.get("__name__", "") if frame else ""
        return name.startswith("digitlab.") and name not in (schema.__name__, data_schema.__name__)

    for cls in classes:
        fields = {field.name for field in dataclasses.fields(cls)}

        def noting(self: Any, name: str, fields: set[str] = fields) -> Any:
            if name in fields and caller_is_digitlab(sys._getframe(1)):
                read.add((type(self).__name__, name))
            return object.__getattribute__(self, name)

        monkeypatch.setattr(cls, "__getattribute__", noting)
    runs = [
        ["model=cnn", "optimizer=sgd", "scheduler=cosine", "optimizer.momentum=0.5"],
        ["optimizer=rmsprop", "scheduler=step", "optimizer.momentum=0.5"],
        ["optimizer=adamw", "scheduler=one_cycle", "early_stopping.patience=1"],
        ["scheduler=constant", "checkpoint.weights=best"],
        ["optimizer=adagrad", "scheduler=inverse_sqrt"],
    ]
    runs += [[f"data={form}", f"data.path={path}"] for form, path in write_every_form(home).items()]
    for overrides in runs:
        with Interrupts() as interrupts:
            size = 8 if overrides[0].startswith("data=") else 600
            config = make_config("epochs=2", f"batch_size={size}", *overrides)
            session = Session(interrupts, print, TrainingProgress())
            run_experiment(request_run(config, say=print), session)
    declared = {(cls.__name__, field.name) for cls in classes for field in dataclasses.fields(cls)}
    # A variant's name chooses the class while the schema reads it; the class is what others ask for.
    assert {(cls, field) for cls, field in declared - read if field != "name"} == set()
