"""A package with a model, a table of images, and digitlab as a package: no checkout anywhere."""

import json
from pathlib import Path

import numpy as np
import pytest

from digitlab.data.embedded_digits import read_digits
from tests.support.cli import in_ci
from tests.support.installed import Installed
from tests.support.own import LAYERS, MODELS

pytestmark = in_ci
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "their-package"
version = "1.2"

[project.entry-points."digitlab.models"]
perceptron = "their_package.models:MLP"
"""


def write_package(folder: Path, *, version: str, layers: str) -> None:
    source = folder / "their_package"
    source.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.replace("1.2", version))
    models = MODELS.replace("from layers", "from their_package.layers").replace(', "tanh"', "")
    for name, text in {"__init__.py": "", "models.py": models, "layers.py": layers}.items():
        (source / name).write_text(text.lstrip())


def write_table(file: Path) -> None:
    """The embedded digits, 14x14, each a row: the label and its pixels."""
    images, labels = read_digits("train")
    small = images[:, ::2, ::2].reshape(len(images), -1)
    header = ",".join(["label", *(f"pixel{i}" for i in range(small.shape[1]))])
    rows = np.column_stack([labels, small]).tolist()
    file.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    installed = Installed(tmp_path_factory.mktemp("theirs"))
    write_package(installed.folder / "source", version="1.2", layers=LAYERS)
    installed.install(installed.folder / "source")
    installed.run("digitlab init lab")
    installed.run("cd lab")
    write_table(installed.where / "digits.csv")
    return installed


def test_it_is_swept_compared_and_reproduced(project: Installed) -> None:
    line = "model=perceptron data=csv data.path=digits.csv epochs=3"
    project.run(f"digitlab sweep {line} model.hidden_units=4,64 'seed=range(3)'")
    (sweep,) = json.loads(project.run("digitlab sweeps --json"))
    assert (sweep["status"], sweep["done"]) == ("finished", 6)
    _, first, second, *_ = project.run(f"digitlab compare {sweep['id']}").splitlines()
    assert (first.split()[3], second.split()[3]) == ("64", "4")
    assert "hidden_units" in project.run("digitlab runs")
    assert project.run(f"digitlab reproduce {last(project)}").startswith("IDENTICAL")
    again = project.run(f"digitlab sweep {line} model.hidden_units=4,64 'seed=range(3)' --dry-run")
    assert "6 finished, 0 to run" in again


def test_a_record_of_another_version_of_the_package_is_judged_by_its_source(project: Installed) -> None:
    run = last(project)
    write_package(project.folder / "source", version="1.3", layers=f"# better\n{LAYERS}")
    project.install(project.folder / "source")
    told = project.run(f"digitlab reproduce {run}")
    assert "by other code: their_package/layers.py (of model=perceptron)" in told
    other = LAYERS.replace("nn.ReLU", "nn.ELU")
    write_package(project.folder / "source", version="1.4", layers=other)
    project.install(project.folder / "source")
    told = project.run(f"digitlab reproduce {run}", code=4)
    assert told.startswith("DIFFERENT: code: their_package/layers.py (of model=perceptron)")
    project.pip("uninstall", "--yes", "their-package")
    told = project.run(f"digitlab reproduce {run}", code=5)
    assert "its model perceptron is not registered in this environment" in told
    assert "it was of their-package 1.2" in told


def test_changed_data_is_named(project: Installed) -> None:
    project.run("digitlab train data=csv data.path=digits.csv epochs=1 study=table")
    run = last(project)
    table = project.where / "digits.csv"
    text = table.read_text()
    table.write_text(f"{text[:-1]}{9 if text[-1] != '9' else 8}")
    told = project.run(f"digitlab reproduce {run}", code=4)
    assert told.startswith("DIFFERENT: data: ")


def last(project: Installed) -> str:
    return str(json.loads(project.run("digitlab runs --json"))[0]["run_id"])
