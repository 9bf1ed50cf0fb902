"""Where a project lies, and its conf/ over digitlab's own."""

from pathlib import Path

import pytest

from digitlab.config import project
from digitlab.config.composition import compose, sources
from digitlab.errors import UsageError
from digitlab.text import yaml_text
from tests.support.cli import CHECKOUT, Cli


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose conf/ holds one preset; a test stands in it."""
    folder = tmp_path / "bare"
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "first.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: cnn\nepochs: 3\n"
    )
    (folder / "mlruns").mkdir()
    monkeypatch.delenv("DIGITLAB_HOME")
    monkeypatch.chdir(folder)
    return folder


def test_a_project_is_found_from_any_folder_inside_it(
    bare: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = bare / "notebooks" / "conf"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert project.home() == bare
    monkeypatch.setenv("DIGITLAB_HOME", str(home))
    assert project.home() == home
    monkeypatch.setenv("DIGITLAB_HOME", str(inside))
    with pytest.raises(UsageError, match=r"no conf/ in .*set DIGITLAB_HOME to the folder that"):
        project.home()


def test_outside_of_any_project_it_is_the_checkout_or_a_message(
    digitlab: Cli, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = bare.parent / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert project.home() == CHECKOUT
    gone.rmdir()
    assert project.home() == CHECKOUT
    monkeypatch.chdir(bare.parent)
    monkeypatch.setattr(project, "CHECKOUT", None)
    for command in (["train"], ["runs"], ["config"], ["sweep", "seed=0,1"], ["show", "3f2a91c0"]):
        result = digitlab(*command)
        assert result.code == 2
        *_, line = result.err.splitlines()
        assert "digitlab: this folder is in no project: `digitlab init NAME` makes one" in line
    for command in (["--help"], ["--version"], ["completion", "bash"], ["train", "--help"]):
        assert digitlab(*command).code == 0
    monkeypatch.setenv("_DIGITLAB_COMPLETE", "bash_complete")
    for words in ("digitlab train mod", "digitlab show 3f", "digitlab train model="):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", "2")
        assert digitlab().err == ""


def test_what_a_conf_lacks_is_digitlabs_own(bare: Path) -> None:
    assert "first" in project.groups()["experiment"]
    assert "cnn_best" in project.groups()["experiment"]
    assert project.groups()["model"] == ["cnn", "logistic_regression"]
    config = compose(["experiment=first"])
    assert (config.model.name, config.epochs, config.batch_size) == ("cnn", 3, 64)
    found = sources(["experiment=first"])
    assert found["epochs"] == (3, "conf/experiment/first.yaml")
    assert found["model.channels_1"] == (10, "digitlab/conf/model/cnn.yaml")
    assert found["batch_size"] == (64, "digitlab/conf/config.yaml")


def test_a_file_of_a_projects_own_takes_the_place_of_digitlabs(bare: Path) -> None:
    values = yaml_text.read(CHECKOUT / "conf" / "optimizer" / "adam.yaml") | {"learning_rate": 0.5}
    (bare / "conf" / "optimizer").mkdir()
    (bare / "conf" / "optimizer" / "adam.yaml").write_text(yaml_text.dump(values))
    assert sources([])["optimizer.learning_rate"] == (0.5, "conf/optimizer/adam.yaml")
    whole = (CHECKOUT / "conf" / "config.yaml").read_text()
    (bare / "conf" / "config.yaml").write_text(
        whole.replace("model: logistic_regression", "model: cnn").replace(
            "study: digitlab", "study: own"
        )
    )
    assert project.default_choices()["model"] == "cnn"
    assert (compose([]).model.name, sources([])["study"]) == ("cnn", ("own", "conf/config.yaml"))


def test_a_preset_that_names_no_package_is_told_by_its_place(bare: Path) -> None:
    (bare / "conf" / "experiment" / "first.yaml").write_text("epochs: 3\n")
    with pytest.raises(UsageError, match=r"^conf/experiment/first.yaml must begin with"):
        compose(["experiment=first"])


def test_the_best_of_a_sweep_is_saved_in_the_projects_conf(digitlab: Cli, bare: Path) -> None:
    line = ["seed=0,1", "epochs=1", "record.plots=never", "executor=inprocess"]
    assert digitlab("sweep", *line, "--save-best", "good").code == 0
    written = (bare / "conf" / "experiment" / "good.yaml").read_text()
    assert written.splitlines()[:2] == ["# @package _global_", project.schema_line("experiment")]
    assert not (CHECKOUT / "conf" / "experiment" / "good.yaml").exists()
    assert digitlab("train", "experiment=good", "record.plots=never").code == 0
    assert (bare / "mlruns" / "mlflow.db").is_file()


def test_a_checkout_needs_nothing_of_its_own_laid_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITLAB_HOME", str(CHECKOUT))
    assert project.conf_folders() == [CHECKOUT / "conf"]
    assert sources([])["seed"] == (0, "conf/config.yaml")
