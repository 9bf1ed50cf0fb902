"""The commands, tables, links, tree and example of README.md and docs/ say the truth."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from digitlab import cli
from digitlab.config import project
from digitlab.config.composition import compose
from tests.support.cli import CHECKOUT, Cli

README = (CHECKOUT / "README.md").read_text()
PAGES = {page: page.read_text() for page in (CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md"))}
ELSEWHERE = CHECKOUT / "docs" / "your-own-project.md"  # tests/test_wheel.py types its commands
SERVE_UNTIL_STOPPED = {"ui", "demo"}  # tests/ui opens them in a browser
BEFOREHAND = {  # what a command of a page takes for granted
    "restore": ("rm", "3f2a91c0", "--yes"),
    "import": ("export", "3f2a91c0", "run.zip"),
}
TWO_RUNS, SWEEP = ("3f2a91c0", "b2e4de60"), "9c977b3a"  # as the pages call them


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, page by page."""
    found = []
    for page in (text for page, text in PAGES.items() if page != ELSEWHERE):
        parts = re.split(r"^```(\w*)\n", page, flags=re.MULTILINE)
        # Outside and inside take turns: text, language, content, "" (the closing fence), text, ...
        found += [parts[i + 1] for i in range(1, len(parts), 4) if parts[i] == language]
    return found


def commands() -> list[str]:
    """Each once: those of shell blocks, the sweeps of transcripts, the presets of the results."""
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"^\$ (digitlab sweep .*)$", "\n".join(PAGES.values()), re.MULTILINE)
    lines += re.findall(r"`(digitlab train experiment=\w+)`", README)
    return list(dict.fromkeys(line for line in lines if line.startswith("digitlab ")))


@pytest.fixture
def _own_components(home: Path) -> None:
    """The project has the model, the optimizer and the scheduler of the page about them."""
    (home / "models.py").write_text("\n\n".join(b for b in blocks("python") if "@digitlab." in b))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project with the runs and the sweep of the pages, and their ids by those of the pages."""
    folder = tmp_path_factory.mktemp("recorded")
    shutil.copytree(CHECKOUT / "conf", folder / "conf")

    def run(*arguments: str) -> str:
        told = subprocess.run(
            [sys.executable, "-m", "digitlab.cli", *arguments],
            env={**os.environ, "DIGITLAB_HOME": str(folder)},
            check=True,
            capture_output=True,
            text=True,
        )
        return told.stdout

    run("sweep", "optimizer.learning_rate=0.01,0.02", "epochs=1", "study=quickstart", "workers=1")
    runs = json.loads(run("runs", "--study", "quickstart", "--json"))
    (sweep,) = (folder / "mlruns" / "sweeps").iterdir()
    ids = dict(zip(TWO_RUNS, [row["run_id"] for row in runs], strict=True)) | {SWEEP: sweep.name}
    return folder, ids


def draw_seven(file: Path) -> None:
    paper = Image.new("L", (100, 100), 255)
    ImageDraw.Draw(paper).line([(30, 25), (70, 25), (45, 80)], fill=0, width=8)
    paper.save(file)


@pytest.mark.usefixtures("_own_components")
@pytest.mark.parametrize("command", commands())
def test_every_command_works(
    command: str,
    digitlab: Cli,
    recorded: tuple[Path, dict[str, str]],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, name, *arguments = shlex.split(command)
    assert name in cli.cli.commands
    if name == "sweep":  # what it trains takes minutes: its trials are composed and checked
        here = [text for text in arguments if not text.startswith("executor.scheduler=")]
        assert digitlab(name, *here, "--dry-run").code == 0  # a cluster that is not here says nothing
        return
    if name == "train":
        compose(arguments)
        return
    if name in SERVE_UNTIL_STOPPED:
        assert digitlab(name, *arguments, "--help").code == 0
        return
    if name == "export-onnx":
        pytest.importorskip("onnxscript")
    made, ids = recorded
    shutil.copytree(made / "mlruns", home / "mlruns", dirs_exist_ok=True)
    monkeypatch.chdir(home)
    for picture in ("seven.png", "photo.jpg"):
        draw_seven(home / picture)
    store = f"sqlite:///{home / 'mlruns' / 'mlflow.db'}"
    for line in filter(None, (BEFOREHAND.get(name), (name, *arguments))):
        typed = [ids.get(each, each).replace("sqlite:////tmp/other.db", store) for each in line]
        result = digitlab(*typed)
    assert result.code == 0, result.err


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_a_page_runs(page: str, home: Path, tmp_path: Path) -> None:
    found = re.findall(r"^```python\n(.*?)^```", PAGES[CHECKOUT / page], re.MULTILINE | re.DOTALL)
    script = tmp_path / "page.py"
    script.write_text("\n".join(block for block in found if "@digitlab." not in block))
    told = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "DIGITLAB_HOME": str(home), "MPLBACKEND": "Agg"},
    )
    assert told.returncode == 0, told.stderr
    assert page == "README.md" or told.stdout.splitlines()[-1] == "IDENTICAL"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]*)", PAGES[page]):
        assert target == "" or (page.parent / target).exists(), target
    for file, heading in re.findall(r"\]\(([^)#]*)#([^)]+)\)", PAGES[page]):
        linked = PAGES[(page.parent / file).resolve()] if file else PAGES[page]
        headings = re.findall(r"^#+ (.+)$", linked, re.MULTILINE)
        assert heading in [each.lower().replace(" ", "-") for each in headings], heading


def test_every_file_that_a_page_names_is_there() -> None:
    places = (CHECKOUT, CHECKOUT / "src" / "digitlab")
    for page, text in PAGES.items():
        for path in re.findall(r"(?<![\w/.])(?:\w+/)+\w+\.py\b", text):
            assert any((place / path).exists() for place in places), f"{page.name}: {path}"


def test_every_subcommand_is_shown() -> None:
    assert {command.split()[1] for command in commands()} == set(cli.cli.commands)


def test_the_mistakes_are_told_as_shown(digitlab: Cli) -> None:
    (block,) = [b for b in blocks("") if b.startswith("$ digitlab train modle")]
    command, *lines = block.splitlines()
    result = digitlab(*shlex.split(command)[2:])
    assert result.code == 2
    assert result.err.splitlines() == lines


def test_the_groups_and_their_choices_are_all_named() -> None:
    for group, choices in project.groups().items():
        (row,) = [
            row for row in "\n".join(PAGES.values()).splitlines() if row.startswith(f"| `{group}` |")
        ]
        assert set(re.findall(r"`(\w+)`", row)[1:]) >= set(choices)


def test_the_tree_names_every_room_and_no_other_from_the_top_down() -> None:
    (tree,) = [block for block in blocks("") if "src/digitlab/" in block]
    shown = re.findall(r"^( {2,6})(\w+)/ ", tree, re.MULTILINE)
    packages = (CHECKOUT / "src" / "digitlab").glob("*/**/__init__.py")
    assert {name for _, name in shown} == {init.parent.name for init in packages}
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


@pytest.mark.usefixtures("_own_components")
def test_the_components_of_their_page_train(digitlab: Cli) -> None:
    trained = digitlab(
        *("train", "model=mlp", "model.hidden_units=32", "epochs=1"),
        *("optimizer=nadam", "scheduler=polynomial", "scheduler.power=2"),
    )
    assert trained.code == 0, trained.err
    assert "mlp nadam lr=0.002 seed=0  FINISHED" in trained.out
