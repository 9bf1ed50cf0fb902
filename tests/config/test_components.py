"""What a user registers becomes knobs and choices like digitlab's own; a mistake in it is one line."""

from pathlib import Path

import pytest

from digitlab.config.checking import to_config, to_dict
from digitlab.config.components import lookup, source
from digitlab.config.composition import compose, sources
from digitlab.config.knobs import groups, knobs
from digitlab.config.schema import Config
from digitlab.errors import ConfigError
from tests.support.own import LAYERS, MODELS, write_project
from tests.support.processes import python


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        compose(overrides)
    return refusal.value.problems


def test_a_registered_model_is_a_choice_with_checked_knobs(home: Path) -> None:
    write_project(home)
    config = compose(["model=mlp", "model.hidden_units=64", "optimizer=sign", "scheduler=polynomial"])
    assert to_dict(config)["model"] == {
        "name": "mlp",
        "hidden_units": 64,
        "kind": "relu",
        "dropout": 0.1,
    }
    assert to_config(to_dict(config)) == config
    assert knobs({"model": "mlp"})["model.hidden_units"].allowed == "an integer in [1, 4096]"
    assert knobs({"model": "mlp"})["model.hidden_units"].help == "width of the hidden one"


def test_all_mistakes_in_own_knobs_are_told_at_once(home: Path) -> None:
    write_project(home)
    told = problems(
        "model=mlp", "model.hiden_units=3", "model.dropout=2", "model.kind=elu", "optimizer=sign",
        "optimizer.beta=true", "model.hidden_units=1.0",
    )  # fmt: skip
    assert sorted(told) == [
        "model.dropout must be a number in [0, 1), got 2",
        "model.hidden_units must be an integer in [1, 4096], got 1.0",
        "model.kind must be one of relu, tanh, got 'elu'",
        "optimizer.beta must be a number in [0, 1), got true",
        "unknown knob model.hiden_units; did you mean model.hidden_units?",
    ]
    assert problems("model=mpl") == [
        "model must be one of cnn, logistic_regression, mlp, got mpl; did you mean model=mlp?"
    ]
    assert problems("model=cnn", "model.kind=relu") == [
        "model.kind is a knob of model=mlp, not of model=cnn"
    ]


def test_a_file_of_conf_may_set_some_knobs_of_an_own_model(home: Path) -> None:
    write_project(home)
    (home / "conf/model/wide.yaml").write_text("name: mlp\nhidden_units: 512\n")
    assert to_dict(compose(["model=wide"]))["model"]["hidden_units"] == 512
    assert to_dict(compose(["model=wide"]))["model"]["dropout"] == 0.1


def test_where_an_own_knob_is_set_is_named(home: Path) -> None:
    write_project(home)
    (home / "conf/model/wide.yaml").write_text("name: mlp\nhidden_units: 512\n")
    set_by = {path: file for path, (_, file) in sources(["model=wide"]).items()}
    assert set_by["model.hidden_units"] == "conf/model/wide.yaml"
    assert set_by["model.dropout"] == "models.py"
    assert {path: file for path, (_, file) in sources(["model=mlp"]).items()}[
        "model.kind"
    ] == "models.py"


def test_own_components_are_among_the_choices_that_tab_completes(home: Path) -> None:
    write_project(home)
    assert groups()["model"] == ["cnn", "logistic_regression", "mlp"]
    assert "sign" in groups()["optimizer"]


@pytest.mark.parametrize(
    ("replaced", "by", "told"),
    [
        ("activation\n", "no_such\n", "models.py, line 11: ImportError: cannot import name 'no_such'"),
        ("(nn.Module)", "(n.Module)", "models.py, line 15: NameError: name 'n' is not defined"),
        ("import math\n", "import math x\n", "models.py, line 3: SyntaxError: invalid"),
        ("num_classes: int,\n        *", "num_classes: int", "it must take 2 arguments"),
        ("units: Annotated[int,", "units: Annotated[list,", "hidden_units must be annotated"),
        ("] = 32", "] = 0", "the default of hidden_units, 0, is refused"),
        ('"mlp"', '"m/lp"', "a name is made of letters"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_file_is_told_where_its_component_is_asked_for(
    home: Path, replaced: str, by: str, told: str
) -> None:
    assert replaced in MODELS
    write_project(home, MODELS.replace(replaced, by, 1))
    (problem,) = problems("model=mlp")
    assert problem.startswith("model must be one of cnn, logistic_regression, got mlp")
    assert told in problem
    assert isinstance(compose(["model=cnn"]), Config)


def test_an_optimizer_needs_a_learning_rate_and_no_name_is_taken_twice(home: Path) -> None:
    text = MODELS.replace("learning_rate: Anno", "rate: Anno").replace("learning_rate,", "rate,")
    write_project(home, text.replace('"lr": learning_rate', '"lr": rate').replace('"mlp"', '"cnn"'))
    assert lookup.everything().components["model"].keys() == set()
    told = "\n".join(lookup.everything().problems)
    assert "optimizer 'sign': it needs the knob learning_rate: float" in told
    assert "model=cnn of models.py: digitlab has one of this name" in told


def test_knobs_are_known_without_importing_torch_once_they_were_read(home: Path) -> None:
    write_project(home)
    compose(["model=mlp"])
    line = "import sys; from digitlab.config import composition as c; print(c.compose(['model=mlp']))"
    shown = python("-c", f"{line}; assert 'torch' not in sys.modules")
    assert "hidden_units: 32" in shown


def test_the_source_of_a_component_is_its_file_and_what_that_imports_from_beside_it(home: Path) -> None:
    write_project(home)
    (home / "unrelated.py").write_text("x = 1\n")
    mlp = lookup.registered("model")["mlp"]
    assert mlp.files.keys() == {"models.py", "layers.py"}
    before = source.forms(mlp.files)
    commented = {**mlp.files, "layers.py": b"# more\n" + LAYERS.encode()}
    assert source.forms(commented) == before
    assert source.digests(commented) != source.digests(mlp.files)
    changed = {**mlp.files, "layers.py": LAYERS.replace("nn.Tanh", "nn.ELU").encode()}
    assert source.forms(changed) != before


def test_a_package_brings_components_by_entry_point(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "installed" / "their_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('torch is not to be waited for')\n" * 0)
    models = MODELS.replace("from layers", "from their_package.layers")
    (package / "models.py").write_text(models.lstrip())
    (package / "layers.py").write_text(LAYERS.lstrip())
    info = package.with_name("their_package-1.2.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[digitlab.models]\nperceptron = their_package.models:MLP\n"
        "gone = their_other_package.models:MLP\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    config = compose(["model=perceptron"])
    assert to_dict(config)["model"]["name"] == "perceptron"
    component = lookup.registered("model")["perceptron"]
    assert (component.origin.distribution, component.origin.version) == ("their-package", "1.2")
    assert component.files.keys() == {f"their_package/{n}.py" for n in ("__init__", "layers", "models")}
    assert component.load().__name__ == "MLP"
    assert "model=gone: there is no module their_other_package.models" in lookup.everything().problems
