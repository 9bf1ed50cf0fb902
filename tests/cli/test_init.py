"""`digitlab init`: the project that it makes, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from digitlab.config import project
from digitlab.config.composition import compose, sources
from tests.support.cli import Cli


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.delenv("DIGITLAB_HOME")
    monkeypatch.chdir(folder)
    return folder


def test_a_project_has_what_it_needs_and_is_found(
    digitlab: Cli, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = digitlab("init", "shapes")
    assert made.code == 0, made.err
    assert "  cd shapes\n  digitlab train experiment=first\n" in made.out
    files = {file.relative_to(empty / "shapes").as_posix() for file in empty.rglob("*.*")}
    assert files >= {"models.py", "data.py", "README.md", ".gitignore", "mlruns/.gitkeep"}
    assert files >= {"conf/experiment/first.yaml", "conf/.schema/model.json", "tests/test_project.py"}
    assert (empty / "shapes" / "Makefile").is_file()
    assert (empty / "shapes" / "README.md").read_text().startswith("# shapes\n")
    monkeypatch.chdir(empty / "shapes" / "tests")
    assert project.home() == empty / "shapes"
    assert sources(["experiment=first"])["study"] == ("first", "conf/experiment/first.yaml")
    assert compose([]).model.name == "logistic_regression"


def test_it_may_be_this_folder_with_an_environment_in_it(digitlab: Cli, empty: Path) -> None:
    (empty / ".venv").mkdir()
    (empty / ".git").mkdir()
    made = digitlab("init", ".")
    assert made.code == 0, made.err
    assert "cd " not in made.out
    assert "DIGITLAB_HOME" not in made.err
    again = digitlab("init", ".")
    assert again.code == 2
    assert f"{empty} is not empty (it has .gitignore)" in again.err


def test_nothing_is_overwritten_and_odd_names_are_refused(digitlab: Cli, empty: Path) -> None:
    (empty / "full").mkdir()
    (empty / "full" / "thesis.tex").write_text("mine")
    (empty / "file").write_text("mine")
    for name, told in {
        "full": "full is not empty (it has thesis.tex): choose a new name, or an empty folder",
        "file": "file is no folder to work in: Not a directory",
        "file/x": "file/x is no folder to work in: Not a directory",
        "a b": "the name of a project is made of at most 100 letters, digits, . _ and -",
        "größe": "and begins with a letter or digit, got 'größe'",
        "x" * 101: "at most 100 letters",
        "/proc/mine": "/proc/mine cannot be written: ",
    }.items():
        result = digitlab("init", name)
        assert (result.code, len(result.err.splitlines())) == (2, 1), result
        assert told in result.err
    assert digitlab("init", "--", "-x").code == 2
    assert sorted(path.name for path in empty.rglob("*")) == ["file", "full", "thesis.tex"]


def test_a_variable_that_leads_elsewhere_is_said(
    digitlab: Cli, empty: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITLAB_HOME", str(home))
    made = digitlab("init", "mine")
    assert f"unset DIGITLAB_HOME first: it sends every command to {home}" in made.err
    assert (empty / "mine" / "conf" / ".schema" / "model.json").is_file()


def test_the_projects_own_test_passes(digitlab: Cli, empty: Path) -> None:
    assert digitlab("init", ".").code == 0
    line = [sys.executable, "-m", "unittest", "discover", "tests"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Ran 2 tests" in done.stderr
