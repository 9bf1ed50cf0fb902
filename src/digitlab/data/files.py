"""The files of the data sets: found or downloaded, decoded, and checked to the byte on every load.

torchvision checks nothing once its files exist: a flipped pixel, shifted labels or a truncated file
pass silently. Here the raw IDX files are read with numpy and compared with known SHA-256 digests;
torchvision (2.7 s to import) is used for downloading only. Knows nothing of splits, torch or models.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from digitlab.config.data_schema import NUM_TRAIN
from digitlab.data import idx, places
from digitlab.data.digests import digest
from digitlab.data.embedded_digits import REINSTALL, read_digits
from digitlab.data.known import (
    DIGESTS,
    FILES,
    FOLDERS,
    NUM_CLASSES,
    PACKED_MD5,
    SIDE,
    class_names,
)
from digitlab.data.places import MAX_BYTES, folder_of, missing_in, raw_folder
from digitlab.errors import DataError, reason
from digitlab.text.files import read_file

__all__ = [  # what others take from here
    "DIGESTS",
    "FILES",
    "FOLDERS",
    "NUM_CLASSES",
    "PACKED_MD5",
    "SIDE",
    "Bytes",
    "class_names",
    "digest",
    "is_present",
    "known_digests",
    "raw_folder",
    "read_verified",
]

Bytes = npt.NDArray[np.uint8]
DEBIAN = {"fashion_mnist": "dataset-fashion-mnist"}  # the package that is in places.PACKAGED


def read_verified(name: str, root: Path) -> tuple[dict[str, tuple[Bytes, Bytes]], dict[str, str]]:
    """Images (N, 28, 28) and labels (N,) of `train` and `test`, and the SHA-256 of each of the four.

    Downloads the set into `root` if it is nowhere (see places.py).

    Raises:
        DataError: a file is missing, damaged or not what it should be: which, and what to do.
    """
    with _refusals_explained(root):
        folder = None if name == "digits" else _ensured_folder(name, root)
        arrays = {split: _read(name, split, folder) for split in FILES}
    digests = {}
    for split, pair in arrays.items():
        for kind, file, array in zip(("images", "labels"), FILES[split], pair, strict=True):
            digests[f"{split}_{kind}"] = _verify(name, file, digest(array), folder)
    return arrays, digests


def known_digests(name: str, root: Path) -> dict[str, str] | None:
    """The digests `read_verified` would give, without reading where there is but one right answer;
    None if the set is not there yet. Raises DataError as `read_verified` does."""
    if name in DIGESTS:
        return {
            f"{split}_{kind}": DIGESTS[name][file]
            for split, files in FILES.items()
            for kind, file in zip(("images", "labels"), files, strict=True)
        }
    return read_verified(name, root)[1] if is_present(name, root) else None


def is_present(name: str, root: Path) -> bool:
    """Whether all four files are there, packed or not; `digits` always is."""
    with _refusals_explained(root):
        return name == "digits" or not missing_in(folder_of(name, root))


@contextmanager
def _refusals_explained(root: Path) -> Iterator[None]:
    """What the disk refuses below `root`, as one line with what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: {reason(error)}; name another folder with data.root="
        ) from None


def _read(name: str, split: str, folder: Path | None) -> tuple[Bytes, Bytes]:
    """folder: None for `digits`."""
    if folder is None:
        return read_digits(split)
    images_file, labels_file = FILES[split]
    count = NUM_TRAIN[name] if split == "train" else 10_000
    images = _read_idx(name, folder / images_file, (count, SIDE, SIDE))
    labels = _read_idx(name, folder / labels_file, (count,))
    if labels.max() >= NUM_CLASSES:
        position = int(labels.argmax())
        raise DataError(
            f"{folder / labels_file}: label {labels[position]} at position {position}, "
            f"expected 0 to {NUM_CLASSES - 1}; {_remedy(name, folder)}"
        )
    return images, labels


def _read_idx(name: str, file: Path, shape: tuple[int, ...]) -> Bytes:
    packed = file.with_name(file.name + ".gz")
    content = _unpack(name, packed) if packed.exists() and _needs_packed(name, file) else None
    if content is None:
        content = read_file(file, MAX_BYTES)
    elif file.exists() and read_file(file, MAX_BYTES) != content:
        raise DataError(f"{file}: differs from {packed.name} beside it; {_remedy(name, file.parent)}")
    try:
        array = idx.decode(content)
    except ValueError as error:
        raise DataError(f"{file}: {error}; {_remedy(name, file.parent)}") from None
    if array.shape != shape or array.dtype != np.uint8:
        raise DataError(
            f"{file}: holds an array of shape {array.shape} ({array.dtype}), expected {shape} (uint8); "
            f"{_remedy(name, file.parent)}"
        )
    return array


def _needs_packed(name: str, file: Path) -> bool:
    """KMNIST's files are checked by the digests of the packed ones, all others by their own."""
    return name in PACKED_MD5 or not file.exists()


def _unpack(name: str, packed: Path) -> bytes:
    content = read_file(packed, MAX_BYTES)
    if name in PACKED_MD5:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        expected = PACKED_MD5[name][packed.stem]
        if found != expected:
            remedy = _remedy(name, packed.parent)
            raise DataError(f"{packed}: MD5 {found}, expected {expected}; {remedy}")
    try:
        return idx.unpacked(content, MAX_BYTES)
    except ValueError as error:
        raise DataError(f"{packed}: {error}; {_remedy(name, packed.parent)}") from None


def _ensured_folder(name: str, root: Path) -> Path:
    """Download the set if it is nowhere; refuse a stale or incomplete folder."""
    folder = folder_of(name, root)
    if folder != raw_folder(name, root):
        return folder
    for stale in (root / FOLDERS[name] / "processed").glob("*.pt"):
        raise DataError(
            f"{stale}: a copy that torchvision would prefer silently to the checked files in raw/, "
            "expected none; delete it"
        )
    missing = missing_in(folder)
    if len(missing) == 4:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            if missing_in(folder):
                _download(name, root)
    elif missing:
        raise DataError(
            f"{folder}: {', '.join(missing)} missing, expected 4 files; "
            "put them there, or delete the folder to download all of them again"
        )
    return folder


def _download(name: str, root: Path) -> None:
    import torchvision

    raw = raw_folder(name, root)
    try:
        getattr(torchvision.datasets, FOLDERS[name])(root, download=True)
    except Exception as error:  # torchvision raises whatever its mirrors end with
        cause = " ".join(str(error).split()) or type(error).__name__
        for folder in (raw, root / FOLDERS[name]):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        package = f"install Debian's {DEBIAN[name]}, " if name in DEBIAN else ""
        raise DataError(
            f"{raw}: {', '.join(missing_in(raw))} missing, and the download failed ({cause}); "
            f"put the files there (packed .gz or not), {package}name another folder with data.root=, "
            "or train without a network on data=digits"
        ) from None


def _verify(name: str, file: str, found: str, folder: Path | None) -> str:
    """The digest of one decoded file, if it is the known one or none is known."""
    expected = DIGESTS.get(name, {}).get(file, found)
    if found != expected:
        place = folder / file if folder else "scikit-learn's digits.csv.gz"
        raise DataError(
            f"{place}: SHA-256 {found}, expected {expected}: damaged; {_remedy(name, folder)}"
        )
    return found


def _remedy(name: str, folder: Path | None) -> str:
    if folder is None:
        return REINSTALL
    if folder == places.PACKAGED.get(name):
        return f"install {DEBIAN[name]} again, or delete the folder"
    if folder.name == "raw":
        return f"delete the {FOLDERS[name]} folder and run again to download it"
    return "put the published file there, or delete the folder and run again to download it"
