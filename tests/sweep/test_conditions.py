"""Knobs of a search that only some of its models have."""

import json

import pytest

from digitlab.config import project
from digitlab.sweep.ending.stop_rule import TimeLimit
from digitlab.sweep.manifest import Manifest
from digitlab.sweep.planning.plan import plan
from digitlab.sweep.sweep_folder import all_sweeps
from tests.support.cli import Cli
from tests.support.sweeps import bits, tree

QUICK = ("sweep", "epochs=1", "executor=inprocess")
MODELS = ("model=logistic_regression,cnn", "batch_size=interval(100,400)")
CHANNELS = "model.channels_1=interval(2,8)"


def num_ended() -> int:
    events = all_sweeps(project.sweeps())[0].events()
    return sum(event["event"] == "ended" for event in events)


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_a_knob_is_chosen_only_where_there_is_one_however_often_it_is_cut_short(
    sampler: str, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [*QUICK, *MODELS, CHANNELS, f"sweep.search={sampler}", "trials=14", "sweep.seed=1"]
    dry = digitlab(*line, "study=whole", "--dry-run").out
    assert "  model.channels_1: 2 to 8 (where model=cnn)" in dry
    assert "  batch_size: 100 to 400\n" in dry
    result = digitlab(*line, "study=whole")
    assert result.code == 0, result.err
    trials = tree("whole")[1]
    assert len(trials) == 14
    models = {run.params["model.name"] for run in trials}
    assert models == {"cnn", "logistic_regression"}
    for run in trials:
        swept = run.tags.get("swept.model.channels_1")
        is_cnn = run.params["model.name"] == "cnn"
        assert (swept is not None) == is_cnn
        assert not is_cnn or 2 <= int(run.params["model.channels_1"]) <= 8
    assert (
        len({r.tags["swept.model.channels_1"] for r in trials if r.params["model.name"] == "cnn"}) > 1
    )
    own = tree("whole")[0][0]
    assert own.status == "FINISHED"
    assert "pictures are missing" not in result.err
    assert "incomplete" not in result.err
    with monkeypatch.context() as patched:
        for count in (3, 9):
            patched.setattr(TimeLimit, "is_over", lambda self, count=count: num_ended() >= count)
            digitlab(*line, "study=cut", "--for=1h")
    digitlab(*line, "study=cut")
    assert bits("cut") == bits("whole")


def test_what_is_chosen_again_is_replaced_in_every_model(digitlab: Cli) -> None:
    line = [*QUICK, "model=logistic_regression,cnn", "model.channels_1=2,3", "study=small"]
    result = digitlab(*line, "sweep.search=random", "trials=9")
    assert result.code == 0, result.err
    assert "the search ends after 3 of 9 trials" in result.err
    names = sorted(run.name for run in tree("small")[1])
    assert names == ["cnn channels_1=2", "cnn channels_1=3", "logistic_regression"]


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ("model.chanels_1=interval(2,8)", "unknown knob model.chanels_1"),
        ("model.channels_1=interval(0,8)", "model.channels_1 must be"),
    ],
)
def test_a_knob_that_no_model_has_and_a_value_that_is_none_are_refused(
    knob: str, message: str, digitlab: Cli
) -> None:
    result = digitlab(*QUICK, *MODELS, knob, "sweep.search=random", "trials=3")
    assert result.code == 2
    assert message in result.err
    assert not project.sweeps().exists()


def test_a_manifest_from_before_is_read_and_has_the_same_key() -> None:
    planned = plan([*MODELS, "sweep.search=random", "trials=3"])
    values = json.loads(json.dumps(planned.to_json(project.mlruns())))
    for base in values["bases"]:
        del base["lacks"]
    assert Manifest.from_json(values, project.mlruns()) == planned
