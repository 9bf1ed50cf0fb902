"""Data sets of a user's own, in each form: what is read, and what is refused in which words."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from digitlab.data import cache
from digitlab.data.checks import problems_of, warnings_of
from digitlab.data.digests import digests_of
from digitlab.data.image_data import ImageData, held_out, to_classes
from digitlab.data.loaders import csv_files, folder, idx_files, npz
from digitlab.errors import DataError
from tests.support.pictures import idx_bytes, pictures, write_folder

SPLIT: dict[str, Any] = {"test_fraction": 0.2, "test_seed": 0}
FOLDER: dict[str, Any] = {"side": None, "colour": "auto", **SPLIT}
CSV: dict[str, Any] = {"label_column": None, "height": None, "width": None, **SPLIT}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder for data; tmp_path itself holds the project."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def sizes(data: ImageData) -> tuple[int, int]:
    assert problems_of(data) == []
    return len(data.train[1]), len(data.test[1])


def refusal(load: Any, *arguments: Any, **knobs: Any) -> str:
    with pytest.raises(DataError) as refused:
        load(*arguments, **knobs)
    return str(refused.value)


def test_a_folder_for_each_class_is_split_by_its_seed(own: Path) -> None:
    images, labels = pictures(per_class=10, classes=3)
    write_folder(own, images, labels, ["10", "9", "b"][:3])
    data = folder.load(own, **FOLDER)
    assert data.class_names == ["10", "9", "b"]
    assert sizes(data) == (24, 6)
    assert np.bincount(data.test[1]).tolist() == [2, 2, 2], "of every class as many"
    assert data.train[0].shape == (24, 28, 28), "grey, as no pixel has a colour"
    again = folder.load(own, **FOLDER)
    assert digests_of(again) == digests_of(data)
    other = folder.load(own, **{**FOLDER, "test_seed": 1})
    assert digests_of(other)["test_images"] != digests_of(data)["test_images"]
    assert data.origin(1, 0) in [f"10/{place:03}.png" for place in range(10)]


def test_classes_of_numbers_are_in_their_order(own: Path) -> None:
    images, labels = pictures(per_class=2, classes=3)
    write_folder(own, images, labels, ["2", "10", "1"])
    assert folder.load(own, **FOLDER).class_names == ["1", "2", "10"]
    assert to_classes(np.array(["b", "a", "b"]))[1] == ["a", "b"]
    ((first, second), names) = to_classes(np.array([7, 3]), np.array([11]))
    assert (first.tolist(), second.tolist(), names) == ([1, 0], [2], ["3", "7", "11"])


def test_a_picture_more_moves_few_others_to_the_other_split() -> None:
    labels = np.zeros(100, np.int64)
    names = [f"{place}.png" for place in range(100)]
    before = held_out(labels[:99], names[:99], fraction=0.2, seed=0)
    after = held_out(labels, names, fraction=0.2, seed=0)
    assert (before != after[:99]).sum() <= 1
    assert held_out(labels[:2], names[:2], fraction=0.01, seed=0).sum() == 1


def test_train_and_test_folders_are_taken_as_they_are(own: Path) -> None:
    images, labels = pictures(per_class=4, classes=2)
    write_folder(own / "train", images, labels, ["cat", "dog"])
    write_folder(own / "test", images[::2], labels[::2], ["cat"])
    (own / "extra").mkdir()
    data = folder.load(own, **FOLDER)
    assert sizes(data) == (8, 4)
    told = "\n".join(warnings_of(data))
    assert f"not used of {own}: extra/" in told
    assert "4 test images are among the training images" in told
    assert "test/cat/000.png is train/cat/000.png" in told
    assert "no test images of dog" in told


def test_colour_pictures_keep_their_colour(own: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 12, 10, 3), np.uint8)
    labels = np.arange(8) % 2
    write_folder(own, images, labels, ["a", "b"])
    data = folder.load(own, **FOLDER)
    assert data.train[0].shape == (6, 12, 10, 3)
    names = [*data.origins[0]] if data.origins else []
    assert (
        (data.train[0][names.index("a/000.png")] == images[0]).all() if "a/000.png" in names else True
    )
    grey = folder.load(own, **{**FOLDER, "colour": "grey"})
    assert grey.train[0].shape == (6, 12, 10)
    large = folder.load(own, **{**FOLDER, "side": 32})
    assert large.train[0].shape == (6, 32, 32, 3)


def test_everything_that_is_wrong_with_a_folder_is_told_at_once(own: Path) -> None:
    images, labels = pictures(per_class=3, classes=3)
    write_folder(own, images, labels, ["a", "b", "c"])
    (own / "empty").mkdir()
    (own / "a" / "broken.png").write_bytes((own / "a" / "000.png").read_bytes()[:60])
    (own / "b" / "text.jpg").write_text("no picture")
    os.mkfifo(own / "b" / "pipe.png")
    (own / "c" / "zero.png").symlink_to("/dev/zero")
    (own / "c" / "round").symlink_to(own)
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(own / "c" / "wide.png")
    told = refusal(folder.load, own, **FOLDER).splitlines()
    assert all(line.startswith(f"{own}: ") for line in told)
    text = "\n".join(told)
    assert "of empty" in text
    assert "a/broken.png: it is damaged" in text
    assert "b/text.jpg: it is no image of a kind that is read" in text
    assert "b/pipe.png: it is no file" in text
    assert "c/zero.png: it is no file" in text
    assert "c/round: a link to a folder" in text
    assert "9 of 28x28 (a/000.png), 1 of 40x30 (c/wide.png); data.side=28 brings all to 28x28" in text
    for file in ("a/broken.png", "b/text.jpg", "b/pipe.png", "c/zero.png", "c/round"):
        (own / file).unlink()
    (own / "empty").rmdir()
    assert sizes(folder.load(own, **{**FOLDER, "side": 28})) == (7, 3)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ([], "there is no folder in it, expected one for each class"),
        (["only/a.png"], "there must be 2 to 1,000 classes, got 1 (only)"),
        (["train/a/1.png", "val/a/1.png"], "there is train/ and no test/: call val/ test/"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png", "test/a/1.png"], "no training pictures"),
        (["a/1.png", "b/1.webp"], "no pictures (.png, .jpg, .jpeg, .bmp, .gif) of b"),
    ],
)
def test_a_folder_of_another_form_is_refused(made: list[str], told: str, own: Path) -> None:
    for name in made:
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((28, 28), np.uint8)).save(own / name)
    assert told in refusal(folder.load, own, **FOLDER)


@pytest.mark.parametrize(("side", "seen"), [(7, "7x7"), (300, "300x300"), (2000, "1024x1024")])
def test_sides_are_8_to_256(side: int, seen: str, own: Path) -> None:
    write_folder(own, np.zeros((4, side, side), np.uint8), np.arange(4) % 2, ["a", "b"])
    told = refusal(folder.load, own, **FOLDER)
    assert f"pictures are {seen}: each side must be 8 to 256 pixels; data.side=28" in told


def test_there_must_be_a_folder(own: Path) -> None:
    assert "data.path=PATH names another" in refusal(folder.load, own / "x", **FOLDER)
    (own / "file").touch()
    assert "is no folder" in refusal(folder.load, own / "file", **FOLDER)


def test_a_slow_folder_is_kept_and_never_trusted_over_its_digest(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(cache, "folder", lambda: own / "kept")
    images, labels = pictures(per_class=4, classes=2)
    path = own / "pictures"
    write_folder(path, images, labels, ["a", "b"])
    times_read = 0

    def read() -> ImageData:
        nonlocal times_read
        times_read += 1
        return folder.load(path, **FOLDER)

    def load() -> ImageData:
        cache._latest.clear()
        return cache.kept(path, FOLDER, read)

    first = load()
    assert digests_of(load()) == digests_of(first)
    assert load().origins == first.origins
    assert times_read == 1
    (file,) = (own / "kept").iterdir()
    content = bytearray(file.read_bytes())
    content[2000] ^= 1
    file.write_bytes(content)
    assert digests_of(load()) == digests_of(first)
    assert times_read == 2, "what was damaged is read anew"
    picture = path / "a" / "000.png"
    Image.fromarray(255 - images[0]).save(picture)
    assert digests_of(load()) != digests_of(first)
    assert times_read == 3
    assert len([*(own / "kept").iterdir()]) == 1, "what was kept before is deleted"


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_arrays_of_train_and_test_are_read(keys: tuple[str, ...], own: Path) -> None:
    images, labels = pictures(per_class=4, classes=3)
    arrays = [images[:9], labels[:9, None] + 5, images[9:, ..., None], labels[9:].astype(np.uint8) + 5]
    np.savez(own / "set.npz", **dict(zip(keys, arrays, strict=True)), val_images=images)
    data = npz.load(own / "set.npz", **SPLIT)
    assert sizes(data) == (9, 3)
    assert data.class_names == ["5", "6", "7"]
    assert (data.test[0] == images[9:]).all()
    assert data.notes == ("not used of the file: val_images",)


def test_arrays_of_one_piece_are_split_and_labels_may_be_texts(own: Path) -> None:
    images, labels = pictures(per_class=10, classes=2)
    names = np.array(["no", "yes"])[labels]
    np.savez_compressed(own / "set.npz", images=images.astype(np.float32), labels=names)
    data = npz.load(own / "set.npz", **SPLIT)
    assert sizes(data) == (16, 4)
    assert data.class_names == ["no", "yes"]
    assert data.train[0].dtype == np.uint8
    assert data.origin(1, 0).startswith("row ")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"images": np.zeros((4, 28, 28), np.uint8)}, "holds images, expected the arrays x_train"),
        ({"images": np.full((4, 9, 9), 0.5), "labels": np.arange(4)}, "save (255 * images).round()"),
        ({"images": np.full((4, 9, 9), 300), "labels": np.arange(4)}, "got int64 from 300 to 300"),
        ({"images": np.zeros((4, 9, 9)), "labels": np.eye(4)}, "save labels.argmax(axis=1)"),
        ({"images": np.zeros((4, 9, 9)), "labels": np.arange(3)}, "expected as many labels as images"),
        ({"images": np.array([[{}]]), "labels": np.arange(1)}, "images holds Python objects"),
    ],
)
def test_other_arrays_are_refused(arrays: dict[str, Any], told: str, own: Path) -> None:
    np.savez(own / "set.npz", **arrays)
    assert told in refusal(npz.load, own / "set.npz", **SPLIT)


def test_what_is_no_npz_file_is_refused(own: Path) -> None:
    (own / "text.npz").write_text("text")
    assert "cannot be read as a .npz file" in refusal(npz.load, own / "text.npz", **SPLIT)
    os.mkfifo(own / "pipe")
    assert "is no regular file" in refusal(npz.load, own / "pipe", **SPLIT)
    assert "is a folder" in refusal(npz.load, own, **SPLIT)


def table(images: np.ndarray, labels: Any, *, header: str | None, last: bool = False) -> str:
    rows = []
    for image, label in zip(images, labels, strict=True):
        pixels = [str(pixel) for pixel in image.ravel()]
        rows.append(",".join([*pixels, str(label)] if last else [str(label), *pixels]))
    return "\n".join([*([header] if header else []), *rows]) + "\n"


def columns(count: int) -> str:
    return ",".join(f"pixel{place}" for place in range(count))


@pytest.mark.parametrize(
    ("header", "last", "chosen"),
    [
        (f"label,{columns(64)}", False, None),
        (f"{columns(64)},class", True, None),
        (f"{columns(64)},what", True, "what"),
        ("label," + ",".join(map(str, range(64))), False, None),
        (",".join(map(str, range(65))), False, None),
        (None, False, None),
        (None, True, "-1"),
        (None, True, "64"),
    ],
)
@pytest.mark.parametrize("labels", [[3, 4], ["no", "yes"]])
def test_a_table_of_pixels_is_read(
    header: str | None, last: bool, chosen: str | None, labels: list[Any], own: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    file = own / "set.csv"
    file.write_text(table(images, labels * 10, header=header, last=last))
    data = csv_files.load(file, **{**CSV, "label_column": chosen})
    assert sizes(data) == (16, 4)
    assert data.class_names == [str(label) for label in labels]
    assert data.origins is not None
    assert (data.train[0] == images[[*data.origins[0]]]).all()
    assert (data.test[1] == np.array([row % 2 for row in data.origins[1]])).all()


def test_two_tables_are_train_and_test_and_shapes_may_be_given(own: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 10), np.uint8)
    for split, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        text = table(images[part], np.arange(6)[part] % 2, header=None)
        (own / f"set_{split}.csv").write_text(text)
    data = csv_files.load(own, **{**CSV, "width": 10})
    assert sizes(data) == (4, 2)
    assert (data.test[0] == images[4:]).all()
    told = refusal(csv_files.load, own, **CSV)
    assert "has 80 columns besides the label, which are no images of a square" in told
    (own / "set_test.csv").unlink()
    assert "expected one .csv file with test in its name" in refusal(csv_files.load, own, **CSV)


def test_a_table_as_pandas_writes_it_and_colour(own: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    lines = table(images, [0, 1] * 3, header=f"label,{columns(192)}").splitlines()
    numbered = [f"{'' if place == 0 else place - 1},{line}" for place, line in enumerate(lines)]
    (own / "set.csv").write_text("\n".join(numbered))
    data = csv_files.load(own / "set.csv", **CSV)
    assert data.train[0].shape[1:] == (8, 8, 3)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (["1", *["x"] * 1, *["5"] * 63], "line 8, column pixel0: 'x' is no number"),
        (["1", "", *["5"] * 63], "line 8, column pixel0: there is no number"),
        (["", *["5"] * 64], "1 rows have no label in column label"),
        (["1", "256", *["5"] * 63], "column pixel0: pixels must be whole numbers from 0 to 255"),
        (["1", *["5"] * 60], "cannot be read as a table"),
    ],
)
def test_a_wrong_row_of_a_table_is_named(row: list[str], told: str, own: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    text = table(images, [0, 1] * 3, header=f"label,{columns(64)}") + ",".join(row) + "\n"
    (own / "set.csv").write_text(text)
    assert told in refusal(csv_files.load, own / "set.csv", **CSV)


def test_a_column_that_is_not_there_is_told_with_those_there_are(own: Path) -> None:
    images = np.zeros((4, 8, 8), np.uint8)
    (own / "set.csv").write_text(table(images, [0, 1] * 2, header=f"label,{columns(64)}"))
    told = refusal(csv_files.load, own / "set.csv", **{**CSV, "label_column": "digit"})
    assert "there is no column digit (data.label_column)" in told
    assert "names are label, pixel0" in told


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_of_any_labels_become_classes(packed: bool, own: Path) -> None:
    images, labels = pictures(per_class=4, classes=3)
    for split, part in (("train", slice(0, 9)), ("test", slice(9, 12))):
        for what, array in (("images-idx3", images[part]), ("labels-idx1", labels[part] + 1)):
            content = idx_bytes(array)
            name = f"emnist-letters-{split}-{what}-ubyte" + (".gz" if packed else "")
            (own / name).write_bytes(gzip.compress(content) if packed else content)
            (own / name.replace("letters", "digits")).write_bytes(b"")
    data = idx_files.load(own / "emnist-letters", **SPLIT)
    assert sizes(data) == (9, 3)
    assert data.class_names == ["1", "2", "3"]
    assert (data.test[0] == images[9:]).all()
    assert "are several of one kind" in refusal(idx_files.load, own, **SPLIT)


def test_one_pair_of_idx_files_is_split_and_labels_may_be_wide(own: Path) -> None:
    images, labels = pictures(per_class=10, classes=2)
    wide = np.stack([labels, *[np.arange(20)] * 7], axis=1).astype(np.int32)
    (own / "qmnist-train-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (own / "qmnist-train-labels-idx2-int").write_bytes(idx_bytes(wide))
    assert sizes(idx_files.load(own, **SPLIT)) == (16, 4)
    (own / "qmnist-train-labels-idx2-int").write_bytes(idx_bytes(wide)[:-1])
    assert "bytes, expected" in refusal(idx_files.load, own, **SPLIT)
    (own / "qmnist-train-labels-idx2-int").unlink()
    assert "there is no IDX file of train labels" in refusal(idx_files.load, own, **SPLIT)


def good(**changes: Any) -> ImageData:
    images, labels = pictures(per_class=4, classes=2)
    values = {"train": (images[:6], labels[:6]), "test": (images[6:], labels[6:])}
    return ImageData(**{**values, "class_names": ["a", "b"], **changes})


IMAGES = np.full((4, 28, 28), 200, np.uint8)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": None}, "train must be a tuple (images, labels), got NoneType"),
        ({"train": ([1], [2])}, "train must be two numpy arrays"),
        ({"test": (IMAGES[:0], np.arange(0))}, "there are no test images"),
        ({"train": (IMAGES / 255, np.arange(4) % 2)}, "save (255 * images).round()"),
        ({"train": (IMAGES.astype(int), np.arange(4) % 2)}, "give images.astype('uint8')"),
        ({"train": (IMAGES[:, None], np.arange(4) % 2)}, "give images.transpose(0, 2, 3, 1)"),
        (
            {"train": (IMAGES, np.arange(4))},
            "train labels must be 0 to 1, the places of class_names, got 2",
        ),
        ({"train": (IMAGES, np.arange(4) / 2)}, "train labels must be integers"),
        ({"train": (IMAGES, np.zeros(4, int))}, "no training images of b"),
        ({"train": (IMAGES[:, :20], np.arange(4) % 2)}, "train has images of 28x20, test of 28x28"),
        ({"class_names": ["a", "a"]}, "two classes have the same name: a"),
        ({"class_names": ["a", "b\n"]}, "printable characters"),
        ({"class_names": ["a"]}, "there must be 2 to 1,000 classes, got 1 (a)"),
        ({"class_names": [0, 1]}, "class_names must be a list of texts"),
    ],
)
def test_what_is_no_data_set_is_refused_whoever_made_it(changes: dict[str, Any], told: str) -> None:
    assert problems_of(good()) == []
    assert told in "\n".join(problems_of(good(**changes)))


def test_uneven_classes_and_dark_images_are_a_warning() -> None:
    images = np.random.default_rng(0).integers(0, 17, (100, 8, 8), np.uint8)
    labels = (np.arange(100) < 5).astype(np.int64)
    data = ImageData((images, labels), (images[:10] + 1, labels[:10]), ["many", "few"])
    told = "\n".join(warnings_of(data))
    assert "95 training images of many, 5 of few" in told
    assert "the brightest pixel is 16 of 255" in told
