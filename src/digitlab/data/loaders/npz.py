"""A .npz file of numpy: arrays by name, as Keras' mnist.npz and MedMNIST's have them.

Nothing in it is unpickled, and nothing is decompressed before its size is known.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

from digitlab.data.checks import labelled
from digitlab.data.image_data import Array, ImageData, Labelled, of_pairs
from digitlab.data.loaders.files import check_regular
from digitlab.errors import DataError

# Images and labels of train, then of test; or of both, to be split.
WHOLE = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
TO_SPLIT = (("images", "labels"), ("x", "y"), ("X", "y"), ("data", "target"))
MAX_BYTES = 16_000_000_000  # of an array


def load(path: Path, *, test_fraction: float, test_seed: int) -> ImageData:
    """Labels are integers or texts; (N, 1) and (N, height, width, 1) lose their last dimension.

    Raises:
        DataError: what is missing or wrong, and what it should be.
    """
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            for keys in (*WHOLE, *TO_SPLIT):
                if names.issuperset(keys):
                    arrays = [_read(archive, path, key) for key in keys]
                    break
            else:
                raise DataError(f"{path}: {_expected(names)}")
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as a .npz file of numpy: {error}") from None
    pairs = [_pair(path, keys[i : i + 2], arrays[i : i + 2]) for i in range(0, len(arrays), 2)]
    return of_pairs(pairs, fraction=test_fraction, seed=test_seed, notes=_notes(names - {*keys}))


def _read(archive: zipfile.ZipFile, path: Path, key: str) -> Array:
    info = archive.getinfo(f"{key}.npy" if f"{key}.npy" in archive.namelist() else key)
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        reader = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, kind = reader(member)
    if kind.hasobject:
        raise DataError(f"{path}: {key} holds Python objects, which are not read: save it as numbers")
    if math.prod(shape) * kind.itemsize > min(info.file_size, MAX_BYTES):
        raise DataError(
            f"{path}: {key} of shape {shape} has more than the {info.file_size:,} bytes that are "
            f"there, or than {MAX_BYTES:,}"
        )
    with archive.open(info) as member:
        array: Array = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _pair(path: Path, keys: tuple[str, ...], arrays: list[Array]) -> Labelled:
    images, labels = arrays
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise DataError(
            f"{path}: {keys[1]} has the shape {labels.shape}, expected one label an image: for scores "
            "of each class save labels.argmax(axis=1)"
        )
    if labels.dtype.kind == "f" and (labels == np.rint(labels)).all():
        labels = labels.astype(np.int64)
    names = {"images_name": f"{path}: {keys[0]}", "labels_name": keys[1]}
    return labelled(images, labels, **names, kinds="iuU")


def _expected(names: set[str]) -> str:
    sets = " or ".join(", ".join(keys) for keys in (WHOLE[0], *TO_SPLIT[:2]))
    return f"holds {', '.join(sorted(names)) or 'nothing'}, expected the arrays {sets}"


def _notes(others: set[str]) -> tuple[str, ...]:
    return (f"not used of the file: {', '.join(sorted(others))}",) if others else ()
