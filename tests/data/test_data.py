"""Data sets: what is accepted, and that no damage passes."""

import gzip
import hashlib
import os
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from digitlab.config.data_schema import NUM_TRAIN, BuiltInDataConfig
from digitlab.data import files, places, splits
from digitlab.errors import DataError
from tests.support.cli import Cli

TRAIN_IMAGES, TRAIN_LABELS = files.FILES["train"]
TEST_IMAGES, TEST_LABELS = files.FILES["test"]


def settings(name: str = "digits", **changes: object) -> BuiltInDataConfig:
    values = {
        "root": None,
        "validation_size": 100,
        "split_seed": 0,
        "order_seed": None,
        "mean": 0.0,
        "std": 1.0,
    }
    return BuiltInDataConfig(name=name, **(values | changes))  # type: ignore[arg-type]


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4) for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def decoded(file: Path) -> np.ndarray:
    content = np.frombuffer(file.read_bytes(), np.uint8)
    return content[16:].reshape(-1, 28, 28) if "images" in file.name else content[8:]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A made-up set in MNIST's layout: blank images, labels 0 to 9 in turn."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for (images, labels), count in (
        (files.FILES["train"], 60_000),
        (files.FILES["test"], 10_000),
    ):
        (folder / images).write_bytes(idx(np.zeros((count, 28, 28))))
        (folder / labels).write_bytes(idx(np.arange(count) % 10))
    return folder


def test_every_data_set_has_digests_to_be_compared_with() -> None:
    assert {*files.DIGESTS, *files.PACKED_MD5} == set(NUM_TRAIN)


def test_digits_are_the_known_bytes_in_disjoint_stratified_splits(tmp_path: Path) -> None:
    dataset = splits.load(settings(), tmp_path)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1337, 100, 360)
    assert dataset.test.labels.bincount().tolist() == [36] * 10
    assert dataset.test.images.dtype == torch.uint8
    every = torch.cat([s.images for s in (dataset.train, dataset.validation, dataset.test)])
    assert len({image.numpy().tobytes() for image in every}) == 1797, "no image is in two splits"


def test_digits_are_scikit_learns_and_enlarged_as_torch_would(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    grown = torch.nn.functional.interpolate(
        torch.tensor(images).view(-1, 1, 8, 8), size=28, mode="bilinear"
    )
    expected = {
        (bytes((row * 255 / 16 + 0.5 + 1e-9).floor().byte().flatten().tolist()), int(label))
        for row, label in zip(grown, labels, strict=True)
    }
    dataset = splits.load(settings(validation_size=0), tmp_path)
    found = {
        (image.numpy().tobytes(), int(label))
        for split in (dataset.train, dataset.test)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    assert found == expected


def test_the_validation_split_depends_on_its_own_seed_only(tmp_path: Path) -> None:
    first = splits.load(settings(split_seed=0), tmp_path)
    again = splits.load(settings(split_seed=0, mean=0.5), tmp_path)
    other = splits.load(settings(split_seed=1), tmp_path)
    assert first.digests == again.digests
    assert first.digests["validation_indices"] != other.digests["validation_indices"]
    assert torch.equal(first.test.images, other.test.images)


def test_without_validation_all_training_images_are_trained_on(tmp_path: Path) -> None:
    dataset = splits.load(settings(validation_size=0), tmp_path)
    assert dataset.validation is None
    assert len(dataset.train) == 1437


def test_a_batch_is_normalised_pixels() -> None:
    images = torch.arange(2 * 784).view(2, 28, 28).remainder(256).to(torch.uint8)
    split = splits.Split(images, torch.tensor([0, 1]), mean=0.25, std=0.5)
    batch = split.normalised(torch.tensor([1]))
    assert batch.shape == (1, 1, 28, 28)
    torch.testing.assert_close(batch[0, 0], (images[1] / 255 - 0.25) / 0.5)


def test_colour_is_normalised_channel_by_channel() -> None:
    images = np.arange(2 * 9 * 8 * 3).reshape(2, 9, 8, 3).astype(np.uint8)
    split = splits.Split(splits.to_tensor(images), torch.tensor([0, 1]), mean=0.25, std=0.5)
    assert split.image_shape == (3, 9, 8)
    expected = torch.from_numpy((images[1:] / 255 - 0.25) / 0.5).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(split.normalised(slice(1, 2)), expected)


def test_real_mnist_loads_whole(mnist: Path) -> None:
    dataset = splits.load(settings("mnist", validation_size=5000), mnist)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (55_000, 5000, 10_000)


def test_real_mnist_is_what_torchvision_reads(mnist: Path) -> None:
    import torchvision

    dataset = splits.load(settings("mnist", validation_size=0), mnist)
    for split, train in ((dataset.train, True), (dataset.test, False)):
        theirs = torchvision.datasets.MNIST(mnist, train=train)
        assert torch.equal(split.images, theirs.data)
        assert torch.equal(split.labels, theirs.targets)


def flip_a_pixel(raw: Path) -> Path:
    file = raw / TRAIN_IMAGES
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    return file


def shift_labels(raw: Path) -> Path:
    file = raw / TRAIN_LABELS
    content = file.read_bytes()
    file.write_bytes(content[:8] + content[9:] + content[8:9])
    return file


def label_200(raw: Path) -> Path:
    file = raw / TEST_LABELS
    content = bytearray(file.read_bytes())
    content[8 + 77] = 200
    file.write_bytes(content)
    return file


def fewer_labels(raw: Path) -> Path:
    file = raw / TEST_LABELS
    file.write_bytes(idx(np.zeros(9000)))
    return file


def truncate(raw: Path) -> Path:
    file = raw / TEST_IMAGES
    file.write_bytes(file.read_bytes()[:-1])
    return file


def empty(raw: Path) -> Path:
    file = raw / TEST_IMAGES
    file.write_bytes(b"")
    return file


def error_page(raw: Path) -> Path:
    file = raw / TRAIN_IMAGES
    file.write_bytes(b"<html>404 not found</html>")
    return file


def images_for_labels(raw: Path) -> Path:
    file = raw / TEST_LABELS
    file.write_bytes((raw / TEST_IMAGES).read_bytes())
    return file


def stale_processed(raw: Path) -> Path:
    file = raw.parent / "processed" / "training.pt"
    file.parent.mkdir()
    file.write_bytes(b"old")
    return file


def lost_file(raw: Path) -> Path:
    (raw / TEST_LABELS).unlink()
    return raw


DAMAGES = [flip_a_pixel, shift_labels, label_200, fewer_labels, truncate, empty, error_page]
DAMAGES += [images_for_labels, stale_processed, lost_file]


@pytest.mark.fault("F13")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line_with_file_expectation_and_remedy(
    damage: Callable[[Path], Path], raw: Path, monkeypatch: pytest.MonkeyPatch, digitlab: Cli
) -> None:
    root = raw.parents[1]
    whole = {}
    for (images, labels), count in (
        (files.FILES["train"], 60_000),
        (files.FILES["test"], 10_000),
    ):
        whole[images] = files.digest(np.zeros((count, 28, 28), np.uint8))
        whole[labels] = files.digest((np.arange(count) % 10).astype(np.uint8))
    monkeypatch.setitem(files.DIGESTS, "mnist", whole)
    splits.load(settings("mnist"), root)  # whole as it is
    file = damage(raw)
    result = digitlab("train", "data=mnist", f"data.root={root}")
    assert result.code == 3
    assert len(result.err.splitlines()) == 1
    assert str(file) in result.err
    assert "expected" in result.err
    assert "delete" in result.err
    runs = digitlab("runs", "--json")
    assert "run_id" not in runs.out, "no run is recorded"


def pipe(raw: Path) -> str:
    (raw / TRAIN_IMAGES).unlink()
    os.mkfifo(raw / TRAIN_IMAGES)
    return "is no regular file"


def endless(raw: Path) -> str:
    (raw / TRAIN_IMAGES).unlink()
    (raw / TRAIN_IMAGES).symlink_to("/dev/zero")
    return "is no regular file"


def oversized(raw: Path) -> str:
    with (raw / TRAIN_IMAGES).open("wb") as file:
        file.truncate(10**10)
    return "has 10,000,000,000 bytes"


def endless_when_packed(raw: Path) -> str:
    (raw / TRAIN_IMAGES).unlink()
    (raw / f"{TRAIN_IMAGES}.gz").symlink_to("/dev/zero")
    return "is no regular file"


def bomb(raw: Path) -> str:
    (raw / TRAIN_IMAGES).unlink()
    zeros = gzip.compress(bytes(10**8), 1)
    (raw / f"{TRAIN_IMAGES}.gz").write_bytes(zeros * 10)
    return "starts with b'\\x00"


def flipped_when_packed(raw: Path) -> str:
    (raw / TRAIN_IMAGES).unlink()
    packed = bytearray(gzip.compress(bytes(10**6)))
    packed[20:40] = bytes(20)
    (raw / f"{TRAIN_IMAGES}.gz").write_bytes(packed)
    return "cannot be unpacked"


def folder_instead(raw: Path) -> str:
    (raw / TRAIN_IMAGES).unlink()
    (raw / TRAIN_IMAGES).mkdir()
    return "is no regular file"


def loop(raw: Path) -> str:
    (raw / TRAIN_IMAGES).unlink()
    (raw / TRAIN_IMAGES).symlink_to(TRAIN_IMAGES)
    return "missing"


ODD_FILES = [pipe, endless, oversized, endless_when_packed, bomb, flipped_when_packed]
ODD_FILES += [folder_instead, loop]


@pytest.mark.fault("F13")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("odd", ODD_FILES)
def test_a_file_that_is_none_or_never_ends_is_refused_at_once(
    odd: Callable[[Path], str], raw: Path
) -> None:
    told = odd(raw)
    tracemalloc.start()
    with pytest.raises(DataError, match=re.escape(told)) as refused:
        splits.load(settings("mnist"), raw.parents[1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert TRAIN_IMAGES in str(refused.value)
    assert peak < 200e6


@pytest.mark.parametrize("root", ["/dev/null", "/dev/null/x", "/proc/x"])
def test_a_folder_that_cannot_be_made_is_one_line(root: str, digitlab: Cli) -> None:
    result = digitlab("train", "data=mnist", f"data.root={root}")
    assert result.code == 3
    (line,) = result.err.splitlines()
    assert root in line
    assert "name another folder with data.root=" in line


@pytest.mark.fault("F13")
@pytest.mark.parametrize("damage", [flip_a_pixel, shift_labels])
def test_damage_to_real_mnist_is_found(
    damage: Callable[[Path], Path], mnist: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "MNIST" / "raw"
    copy.mkdir(parents=True)
    for file in (mnist / "MNIST" / "raw").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    splits.load(settings("mnist"), tmp_path)
    damaged = damage(copy)
    with pytest.raises(DataError, match=damaged.name):
        splits.load(settings("mnist"), tmp_path)


@pytest.mark.fault("F16")
def test_missing_data_without_network_says_what_where_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digitlab: Cli
) -> None:
    import torchvision

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    result = digitlab("train", "data=mnist", f"data.root={tmp_path}")
    assert result.code == 3
    message = result.err.strip().splitlines()[-1]
    assert str(tmp_path / "MNIST" / "raw") in message
    assert "t10k-labels-idx1-ubyte" in message
    assert "data=digits" in message


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, with the folder that it serves."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", folder
        server.shutdown()


def test_a_set_is_downloaded_checked_and_used_again(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision's real download, from a server of ours, with files of ours."""
    name = "kmnist"
    import torchvision

    address, folder = mirror
    resources, sums = [], {}
    for (images, labels), count in (
        (files.FILES["train"], 60_000),
        (files.FILES["test"], 10_000),
    ):
        for file, array in ((images, np.zeros((count, 28, 28))), (labels, np.arange(count) % 10)):
            packed = gzip.compress(idx(array), compresslevel=1)
            (folder / f"{file}.gz").write_bytes(packed)
            sums[file] = hashlib.md5(packed).hexdigest()
            resources.append((f"{file}.gz", sums[file]))
    theirs = getattr(torchvision.datasets, files.FOLDERS[name])
    monkeypatch.setattr(theirs, "mirrors", [address])
    monkeypatch.setattr(theirs, "resources", resources)
    monkeypatch.setitem(files.PACKED_MD5, name, sums)
    root = tmp_path / "data"
    dataset = splits.load(settings(name), root)
    assert len(dataset.test) == 10_000

    monkeypatch.setattr(theirs, "mirrors", [])
    splits.load(settings(name), root)  # nothing is downloaded twice
    damaged = files.raw_folder(name, root) / TRAIN_LABELS
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x05")
    with pytest.raises(DataError, match=f"{TRAIN_LABELS}: differs from {TRAIN_LABELS}.gz"):
        splits.load(settings(name), root)
    packed = damaged.with_name(f"{TRAIN_LABELS}.gz")
    packed.write_bytes(packed.read_bytes() + b"x")
    with pytest.raises(DataError, match="MD5"):
        splits.load(settings(name), root)


def test_packed_files_are_judged_by_what_they_hold_whoever_packed_them(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's gzip headers, for one, hold neither name nor time."""
    known = {file.name: files.digest(decoded(file)) for file in raw.iterdir()}
    monkeypatch.setitem(files.DIGESTS, "fashion_mnist", known)
    folder = files.raw_folder("fashion_mnist", tmp_path)
    folder.mkdir(parents=True)
    for file in raw.iterdir():
        packed = gzip.compress(file.read_bytes(), compresslevel=1, mtime=len(file.name))
        (folder / f"{file.name}.gz").write_bytes(packed)
    assert len(splits.load(settings("fashion_mnist"), tmp_path).test) == 10_000
    packed_labels = folder / f"{TEST_LABELS}.gz"
    whole = packed_labels.read_bytes()
    for content in (whole[:40], whole[:30] + b"\xff\xff\xff" + whole[33:], b"no gzip"):
        packed_labels.write_bytes(content)
        with pytest.raises(DataError, match=f"{TEST_LABELS}.*delete"):
            splits.load(settings("fashion_mnist"), tmp_path)
    packed_labels.write_bytes(gzip.compress(idx(np.zeros(10_000))))
    with pytest.raises(DataError, match=f"{TEST_LABELS}: SHA-256"):
        splits.load(settings("fashion_mnist"), tmp_path)


def debians(mnist: Path) -> Path:
    packed = mnist / "fashion-mnist-debian"
    if not packed.is_dir():
        pytest.skip("no fashion-mnist-debian beside MNIST (Debian's dataset-fashion-mnist)")
    return packed


def test_debians_fashion_mnist_is_found_where_it_lies(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As data.root, in a folder of any name below it, unpacked too, and where its package puts it."""
    packed = debians(mnist)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "of any name").symlink_to(packed)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    for file in packed.iterdir():
        (unpacked / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    for root in (packed, tmp_path / "below", unpacked):
        assert files.is_present("fashion_mnist", root)
        assert not files.is_present("mnist", root), "told apart by what they hold"
    dataset = splits.load(settings("fashion_mnist", validation_size=5000), packed)
    assert (len(dataset.train), len(dataset.test)) == (55_000, 10_000)
    assert (
        splits.load(settings("fashion_mnist"), unpacked).digests["train_images"]
        == (dataset.digests["train_images"])
    )
    empty = tmp_path / "empty"
    assert not files.is_present("fashion_mnist", empty)
    monkeypatch.setitem(places.PACKAGED, "fashion_mnist", packed)
    assert files.is_present("fashion_mnist", empty)
    assert len(splits.load(settings("fashion_mnist"), empty).test) == 10_000
    assert not empty.exists(), "nothing was downloaded"


def test_damage_in_a_packages_folder_says_what_to_do(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(places.PACKAGED, "fashion_mnist", raw)
    with pytest.raises(DataError, match=r"SHA-256 .* install dataset-fashion-mnist again"):
        splits.load(settings("fashion_mnist"), tmp_path / "empty")


def test_doctor_says_where_a_set_lies(
    mnist: Path, monkeypatch: pytest.MonkeyPatch, digitlab: Cli
) -> None:
    packed = debians(mnist)
    monkeypatch.setenv("DIGITLAB_DATA", str(packed))
    lines = digitlab("doctor").out.splitlines()
    (line,) = [line for line in lines if "data fashion_mnist" in line]
    assert "intact, 60000 training and 10000 test images" in line
    assert str(packed) in line
    (line,) = [line for line in lines if "data mnist" in line]
    assert "downloaded when first used" in line
