"""The README's commands, tree, tables and example say the truth."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from digitlab import cli
from digitlab.config import project
from digitlab.config.composition import compose
from tests.conftest import CHECKOUT, Cli
from tests.test_house_rules import SOURCE

README = (CHECKOUT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in their order."""
    parts = re.split(r"^```(\w*)\n", README, flags=re.MULTILINE)
    # Outside and inside take turns: text, language, content, "" (the closing fence), text, ...
    return [parts[i + 1] for i in range(1, len(parts), 4) if parts[i] == language]


COMMANDS = [
    line.partition("#")[0].strip()
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("digitlab ")
]
COMMANDS += re.findall(r"^\$ (digitlab sweep .*)$", README, re.MULTILINE)
PRESETS = re.findall(r"`digitlab (train experiment=\w+)`", README)


@pytest.mark.parametrize("command", COMMANDS + [f"digitlab {preset}" for preset in PRESETS])
def test_every_command_is_understood(command: str, digitlab: Cli) -> None:
    _, name, *arguments = shlex.split(command)
    assert name in cli.cli.commands
    if name == "config":
        assert digitlab(name, *arguments).code == 0
    elif name == "sweep":
        assert digitlab(name, *arguments, "--dry-run").code == 0
    elif name == "train":
        compose(arguments)
    else:
        assert digitlab(name, *arguments, "--help").code == 0


def test_every_subcommand_is_shown() -> None:
    assert {command.split()[1] for command in COMMANDS} == set(cli.cli.commands)


def test_the_mistakes_are_told_as_shown(digitlab: Cli) -> None:
    (block,) = [b for b in blocks("") if b.startswith("$ digitlab train modle")]
    command, *lines = block.splitlines()
    result = digitlab(*shlex.split(command)[2:])
    assert result.code == 2
    assert result.err.splitlines() == lines


def test_the_groups_and_their_choices_are_all_named() -> None:
    for group, choices in project.groups().items():
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{group}` |")]
        assert set(re.findall(r"`(\w+)`", row)[1:]) >= set(choices)


def test_the_tree_names_every_room_and_no_other_from_the_top_down() -> None:
    (tree,) = [block for block in blocks("") if "src/digitlab/" in block]
    shown = re.findall(r"^( {2,4})(\w+)/ ", tree, re.MULTILINE)
    assert {name for _, name in shown} == {init.parent.name for init in SOURCE.glob("*/**/__init__.py")}
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [room for layer in settings["contracts"][0]["layers"] for room in layer.split(" | ")]
    assert [name for indent, name in shown if len(indent) == 2] == layers[:-2]


def test_the_results_are_those_of_the_study() -> None:
    assert (CHECKOUT / "experiments" / "tutorial" / "table.md").read_text() in README


def test_the_make_targets_are_all_named() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    (row,) = [line for line in README.splitlines() if line.startswith("Makefile ")]
    assert set(row.split()[1:]) == targets


def test_adding_a_model_takes_what_the_readme_says(tmp_path: Path) -> None:
    """The README's patch, applied to a copy of the project, trains, completes and is checked."""
    for folder in ("src", "conf"):
        shutil.copytree(CHECKOUT / folder, tmp_path / folder)
    (diff,) = blocks("diff")
    (tmp_path / "mlp.diff").write_text(diff)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "mlp.diff"], cwd=tmp_path, check=True)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "digitlab.cli", *arguments],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )

    trained = run("train", "model=mlp", "model.hidden_units=32", "epochs=2")
    assert trained.returncode == 0, trained.stderr
    assert "mlp adam lr=0.001 seed=0  FINISHED" in trained.stdout
    refused = run("train", "model=mlp", "model.hidden_units=0", "model.channels_1=3")
    assert refused.returncode == 2
    assert "model.hidden_units must be an integer in [1, 4096], got 0" in refused.stderr
    assert "model.channels_1 is a knob of model=cnn, not of model=mlp" in refused.stderr
