"""Data of a user's own from the command line: trained on, swept, run again, and refused."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digitlab.config.composition import compose
from digitlab.config.data_schema import FolderDataConfig
from digitlab.data import sources
from digitlab.data.splits import load
from digitlab.errors import ConfigError, DataError
from digitlab.runs import plots
from tests.support.cli import CHECKOUT, Cli
from tests.support.pictures import pictures, write_every_form, write_folder

NAMES = [f"{18 * place} degrees" for place in range(10)]
QUICK = ("epochs=2", "batch_size=16", "threads=1")


@pytest.fixture
def bars(home: Path) -> Path:
    """500 pictures in ten classes, in the project."""
    images, labels = pictures(per_class=50, classes=10)
    write_folder(home / "bars", images, labels, NAMES)
    return home / "bars"


def one_run(out: str) -> str:
    match = re.search(r"^run (\w+)", out, re.MULTILINE)
    assert match, out
    return match[1]


def test_a_folder_of_pictures_is_trained_swept_and_reproduced(
    bars: Path, home: Path, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    draw = plots.draw_confusion_matrix

    def draw_and_note(answers: object, class_names: list[str], file: Path) -> None:
        drawn.append([*class_names])
        draw(answers, class_names, file)  # type: ignore[arg-type]

    monkeypatch.setattr(plots, "draw_confusion_matrix", draw_and_note)
    chosen = ("data=folder", "model=cnn", *QUICK)
    trained = digitlab("train", *chosen, f"data.path={bars}", "record.plots=always")
    assert trained.code == 0, trained.err
    assert drawn == [sorted(NAMES, key=lambda name: name)], "in the order of their text"
    run = one_run(trained.out)
    recorded = json.loads(next(home.glob("mlruns/artifacts/**/record.json")).read_text())
    assert recorded["config"]["data"]["path"] == "bars", "from the project's folder"
    assert {"train_images", "test_labels", "class_names"} < recorded["data"].keys()

    sweep = ("sweep", *chosen, "data.path=bars", "optimizer.learning_rate=0.001,0.002", "workers=1")
    swept = digitlab(*sweep, "record.plots=auto")
    assert swept.code == 0, swept.err
    assert drawn[1:] == drawn[:1], "the best run's"
    again = digitlab(*sweep)
    assert "ended before" in again.out + again.err

    assert "IDENTICAL" in digitlab("reproduce", run).out
    moved = home.parent / "elsewhere"
    shutil.move(bars, moved)
    missing = digitlab("reproduce", run)
    assert missing.code == 5
    assert f"CANNOT: its data lay in {bars}, which is not here: data.path=PATH" in missing.out
    assert "IDENTICAL" in digitlab("reproduce", run, f"data.path={moved}").out

    file = moved / NAMES[0] / "000.png"
    pixels = np.array(Image.open(file))
    pixels[3, 3] ^= 1
    Image.fromarray(pixels).save(file)
    other = digitlab("reproduce", run, f"data.path={moved}")
    assert other.code == 4
    assert "DIFFERENT: data: " in other.out


def test_each_form_gives_the_same_images(home: Path) -> None:
    digests = {}
    for form, path in write_every_form(home).items():
        dataset = load(compose([f"data={form}", f"data.path={path}", "batch_size=8"]).data)
        assert (len(dataset.train), len(dataset.validation or ()), len(dataset.test)) == (22, 2, 6)
        assert dataset.class_names == [*map(str, range(10))]
        digests[form] = {k: v for k, v in dataset.digests.items() if k.startswith("test")}
    assert digests["npz"] == digests["idx"] == digests["csv"]
    by_side = load(compose(["data=npz", "data.path=set.npz", "data.side=14", "batch_size=8"]).data)
    assert by_side.image_shape == (1, 14, 14)


def test_how_data_are_split_does_not_make_them_read_again(
    bars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_read = []
    read = sources.folder.load
    monkeypatch.setitem(
        sources.LOADERS, FolderDataConfig, lambda *a, **k: times_read.append(1) or read(*a, **k)
    )
    monkeypatch.setattr(sources.folder, "load", sources.LOADERS[FolderDataConfig])
    for seed in range(3):
        config = compose(["data=folder", "data.path=bars", f"data.split_seed={seed}", "data.mean=0.1"])
        assert len(load(config.data).train) == 360
    assert len(times_read) == 1


def test_where_data_lie_does_not_make_another_run(home: Path) -> None:
    from digitlab.config.fingerprint import fingerprint

    one, other = (
        fingerprint(compose(["data=folder", f"data.path={path}"]), device="cpu", data={"train_x": "1"})
        for path in ("a", "b")
    )
    assert one == other
    renamed = {"train_x": "1", "class_names": "2"}
    config = compose(["data=folder", "data.path=a"])
    assert fingerprint(config, device="cpu", data=renamed) != one


def test_data_of_ones_own_need_a_path(digitlab: Cli) -> None:
    refused = digitlab("train", "data=folder", "epochs=0")
    assert refused.code == 2
    refused = digitlab("train", "data=csv")
    assert refused.code == 2
    assert "data.path is missing: data=csv needs data.path=PATH" in refused.err
    refused = digitlab("train", "data=npz", "data.path=none.npz", "data.colour=rgb")
    assert "data.colour is a knob of data=folder, not of data=npz" in refused.err


def test_what_is_wrong_with_data_is_told_at_once_and_nothing_is_recorded(
    bars: Path, digitlab: Cli
) -> None:
    (bars / NAMES[0] / "text.png").write_text("text")
    (bars / "empty").mkdir()
    for command in ("train", "sweep"):
        refused = digitlab(command, "data=folder", "data.path=bars")
        assert refused.code == 3
        assert refused.err.count("digitlab: ") == 2
        assert f"{NAMES[0]}/text.png: it is no image" in refused.err
        assert "of empty" in refused.err
    assert "run_id" not in digitlab("runs", "--json").out


def test_knobs_that_do_not_fit_the_number_of_images_are_refused_for_all_trials(
    bars: Path, digitlab: Cli
) -> None:
    chosen = ("data=folder", "data.path=bars")
    refused = digitlab("train", *chosen, "batch_size=1000")
    assert refused.code == 2
    assert "batch_size must be at most the 360 training images of folder, got 1000" in refused.err
    swept = digitlab("sweep", *chosen, "batch_size=16,1000", "data.validation_size=10,500")
    assert swept.code == 2
    assert "trial 1 (batch_size=16 validation_size=500): data.validation_size must be less" in (
        swept.err
    )
    assert "trial 2 (batch_size=1000 validation_size=10): batch_size must be at most the 390" in (
        swept.err
    )
    assert "nothing was started" in swept.err


def test_data_too_few_for_a_tenth_have_no_validation_split(home: Path, digitlab: Cli) -> None:
    images, labels = pictures(per_class=5, classes=2)
    write_folder(home / "few", images, labels, ["a", "b"])
    chosen = ("data=folder", "data.path=few", "epochs=1", "batch_size=4")
    assert digitlab("train", *chosen).code == 0
    refused = digitlab("train", *chosen, "checkpoint.weights=best")
    assert refused.code == 2
    assert "checkpoint.weights=best needs a validation split" in refused.err


def test_doubtful_data_are_a_warning_said_once(bars: Path, digitlab: Cli) -> None:
    for place in range(10):
        shutil.copy(bars / NAMES[0] / f"{place:03}.png", bars / NAMES[1] / f"copy {place}.png")
    (bars / NAMES[0] / "notes.txt").touch()
    chosen = ("data=folder", "data.path=bars", *QUICK)
    for line in (("train", *chosen), ("sweep", *chosen, "seed=1,2", "workers=2")):
        trained = digitlab(*line)
        assert trained.code == 0, trained.err
        assert trained.err.count("test images are among the training images") == 1
        assert trained.err.count("left out, since they are no pictures that are read: 1 .txt") == 1


def test_a_loader_of_ones_own_is_called_with_its_knobs(home: Path, digitlab: Cli) -> None:
    (home / "data.py").write_text(
        """
from typing import Annotated

import digitlab
import numpy as np
from pydantic import Field


@digitlab.dataset("stripes")
def stripes(*, count: Annotated[int, Field(ge=10, description="images")] = 100):
    labels = np.arange(count) % 2
    images = np.zeros((count, 12, 20, 3), np.uint8)
    images[labels == 1, ::2, :, 0] = 255
    images[labels == 0, :, ::2, 1] = 255
    return digitlab.ImageData((images, labels), (images[:10], labels[:10]), ["red", "green"])
"""
    )
    trained = digitlab("train", "data=stripes", "data.count=200", "record.plots=always", *QUICK)
    assert trained.code == 0, trained.err
    assert "data=stripes: 10 test images are among the training images" in trained.err
    assert "10 of 10 right" in trained.out
    refused = digitlab("train", "data=stripes", "data.count=5")
    assert "data.count must be an integer >= 10, got 5" in refused.err
    assert "IDENTICAL" in digitlab("reproduce", one_run(trained.out)).out


def test_errors_in_a_loader_of_ones_own_are_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(["data=digits"]).data
    own = type("Own", (), {"name": "mine"})()
    for made, told in ((lambda *_: 1 / 0, "ZeroDivisionError"), (lambda *_: 3, "ImageData, got int")):
        monkeypatch.setattr(sources.lookup, "build", made)
        with pytest.raises(DataError, match=f"data=mine.*{told}"):
            sources._by_component(own)
    assert config.name == "digits"
    with pytest.raises(ConfigError, match=r"data.path must be text"):
        compose(["data=idx", "data.path=''"])


def blocks(language: str) -> list[str]:
    page = (CHECKOUT / "docs" / "own-data.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_pages_commands_read_data_of_each_form(home: Path, digitlab: Cli) -> None:
    images, labels = pictures(per_class=6, classes=10)
    write_every_form(home)
    write_folder(home / "pictures", images, labels, [f"class {place}" for place in range(10)])
    write_folder(home / "photos", images, labels, [*"abcdefghij"])
    Image.new("RGB", (300, 200)).save(home / "photos" / "a" / "large.jpg")
    table = np.column_stack([labels, images.reshape(-1, 784)])
    names = ",".join(["label", *(f"pixel{place}" for place in range(784))])
    np.savetxt(home / "table.csv", table, fmt="%d", delimiter=",", header=names, comments="")
    (home / "tables").mkdir()
    for split in ("train", "test"):
        whole = np.loadtxt(home / "csv" / f"{split}.csv", delimiter=",", dtype=int)
        np.savetxt(
            home / "tables" / f"{split}.csv", np.roll(whole, -1, axis=1), fmt="%d", delimiter=","
        )
    lines = [line.partition("  #")[0] for line in "".join(blocks("sh")).splitlines()]
    commands = [shlex.split(line)[2:] for line in lines if line.startswith("digitlab train data=")]
    assert len(commands) == 6
    for command in commands:
        trained = digitlab("train", *command, "epochs=1", "batch_size=8")
        assert trained.code == 0, trained.err


def test_the_pages_loader_gives_what_it_must(home: Path) -> None:
    (example,) = blocks("python")
    (home / "data.py").write_text(example)
    data, _ = sources.read(compose(["data=circles", "data.count=300", "batch_size=8"]).data)
    assert (len(data.train[1]), len(data.test[1]), data.class_names) == (300, 200, ["hole", "disc"])


def test_a_loader_cannot_have_the_knobs_that_all_data_have(home: Path, digitlab: Cli) -> None:
    (home / "data.py").write_text(
        "import digitlab\n\n\n@digitlab.dataset('mine')\ndef mine(*, mean: float = 0.1):\n    ...\n"
    )
    refused = digitlab("train", "data=mine")
    assert refused.code == 2
    assert "data 'mine': no knob of its own can be called mean: all data have that one" in refused.err
