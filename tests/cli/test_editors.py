"""JSON Schema for editors says of conf/ what the check says, in the files where editors look for it."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from digitlab.cli.project import json_schema
from digitlab.config import project
from digitlab.config.checking import to_dict
from digitlab.config.composition import compose
from digitlab.config.knobs import variants
from digitlab.text import yaml_text
from tests.support.cli import CHECKOUT, Cli

CONF = CHECKOUT / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
FORMS = ("folder", "npz", "csv", "idx")  # of data, which need a path


def pointed_at(file: Path) -> Path:
    """The schema that the file's own line names."""
    (line,) = [line for line in file.read_text().splitlines() if line.startswith("# yaml-language-")]
    return (file.parent / line.partition("$schema=")[2]).resolve()


def problems(schema: Any, values: Any) -> list[str]:
    """`path: message` of all that is wrong."""
    return [f"{e.json_path}: {e.message}" for e in Draft202012Validator(schema).iter_errors(values)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_file_of_conf_names_its_schema_and_keeps_to_it(file: Path) -> None:
    group = None if file.parent == CONF else file.parent.name
    assert project.schema_line(group) in file.read_text().splitlines()[:2]
    assert problems(json.loads(pointed_at(file).read_text()), yaml_text.read(file)) == []


def test_the_schemas_of_this_checkout_are_todays() -> None:
    committed = {file.stem: file.read_text() for file in (CONF / ".schema").iterdir()}
    assert committed.keys() == json_schema.schemas().keys()
    for name, text in committed.items():
        assert text == json_schema.text_of(name), f"conf/.schema/{name}.json: run `digitlab schema`"


def test_they_are_schemas() -> None:
    for schema in json_schema.schemas().values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("model", {"name": "cnnn"}, "$.name: 'cnnn' is not one of ['logistic_regression', 'cnn'"),
        ("model", {"name": "logistic_regression", "channels_1": 3}, "('channels_1' was unexpected)"),
        ("model", {"name": "cnn", "channels_1": 3}, "'channels_2' is a required property"),
        ("model", {"defaults": ["cnn"], "hidden_unit": 3}, "('hidden_unit' was unexpected)"),
        ("model", {"defaults": ["cnn"], "hidden_units": 0}, "$.hidden_units: 0 is less than the min"),
        ("optimizer", {"defaults": ["adam"], "learning_rate": 0}, "0 is less than or equal to the min"),
        ("optimizer", {"defaults": ["sgd"], "nesterov": "yes"}, "'yes' is not of type 'boolean'"),
        ("tracking", {}, "$: 'uri' is a required property"),
        ("executor", {"name": "processes", "workers": None, "per_gpu": 0}, "$.per_gpu: 0 is less"),
        ("engine", {"name": "fast"}, "'fast' is not one of ['auto', 'fused', 'sequential']"),
        ("experiment", {"epoch": 3}, "('epoch' was unexpected)"),
        ("experiment", {"batch_size": 0}, "$.batch_size: 0 is less than the minimum of 1"),
        (
            "experiment",
            {"defaults": [{"override /model": "logistic_regression"}], "model": {"channels_1": 3}},
            "$.model: Additional properties are not allowed ('channels_1' was unexpected)",
        ),
        ("config", {"early_stopping": {"patience": -1}}, "$.early_stopping.patience: -1 is less than"),
        ("sweep", {"defaults": ["default"], "grid": {"optimizer.learning_rat": [1]}}, "_rat' was unex"),
        ("sweep", {"defaults": ["default"], "grid": {"batch_size": [16, 0]}}, "[16, 0] is not valid"),
        ("sweep", {"defaults": ["default"], "space": {"model": ["cnn", "cn"]}}, "'cn'] is not valid"),
        ("sweep", {"defaults": ["default"], "repeats": 0}, "$.repeats: 0 is less than the minimum"),
    ],
)
def test_a_misspelt_knob_and_a_value_out_of_range_are_found(
    name: str, values: dict[str, Any], told: str
) -> None:
    found = problems(json_schema.schemas()[name], values)
    assert any(told in one for one in found), found


def test_every_composition_keeps_to_the_schema_of_a_whole_configuration() -> None:
    schema = json_schema.schemas()["resolved"]
    lines = [[f"{group}={name}"] for group, names in variants().items() for name in names]
    for line in [*lines, ["experiment=cnn_best", "tracking=server"]]:
        path = [] if line[0].partition("=")[2] not in FORMS else ["data.path=pictures"]
        values = json.loads(json.dumps(to_dict(compose([*line, *path]))))
        assert problems(schema, values) == [], line
        assert problems(schema, {**values, "seed": -1, "sed": 1}), line


def test_the_command_writes_all_or_prints_one(digitlab: Cli, home: Path) -> None:
    (home / "conf" / ".schema" / "model.json").unlink()
    assert digitlab("schema").out == f"wrote {home / 'conf' / '.schema'}\n"
    file = home / "conf" / ".schema" / "model.json"
    assert digitlab("schema", "model").out == file.read_text()
    refused = digitlab("schema", "modle")
    assert refused.code == 2
    assert refused.err.startswith("digitlab: there is a schema of each of config, data, engine, ")


def test_a_choice_that_a_project_adds_as_a_file_is_known(digitlab: Cli, home: Path) -> None:
    (home / "conf" / "model" / "wide.yaml").write_text(
        f"{project.schema_line('model')}\ndefaults: [cnn, _self_]\nhidden_units: 500\n"
    )
    (home / "conf" / "experiment" / "odd ~ 1.yaml").write_text("# @package _global_\nepochs: 3\n")
    assert digitlab("schema").code == 0
    file = home / "conf" / "model" / "wide.yaml"
    assert problems(json.loads(pointed_at(file).read_text()), yaml_text.read(file)) == []
    sweep = json_schema.schemas()["sweep"]
    assert problems(sweep, {"defaults": ["default"], "grid": {"model": ["wide", "cnn"]}}) == []


def test_a_new_projects_files_keep_to_schemas_that_know_its_own_model(
    digitlab: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIGITLAB_HOME")
    monkeypatch.chdir(tmp_path)
    assert digitlab("init", "mine").code == 0
    (preset,) = (tmp_path / "mine" / "conf").rglob("*.yaml")
    schema, values = json.loads(pointed_at(preset).read_text()), yaml_text.read(preset)
    assert problems(schema, values) == []
    values["model"]["hidden_units"] = 0
    assert "$.model.hidden_units: 0 is less than the minimum of 1" in problems(schema, values)
