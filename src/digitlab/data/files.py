"""The files of the data sets: found or downloaded, decoded, and checked to the byte on every load.

torchvision checks nothing once its files exist: a flipped pixel, shifted labels or a truncated file
pass silently. Here the raw IDX files are read with numpy and compared with known SHA-256 digests;
torchvision (2.7 s to import) is used for downloading only. Knows nothing of splits, torch or models.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from digitlab.config.schema import NUM_TRAIN
from digitlab.data.embedded_digits import REINSTALL, read_digits
from digitlab.errors import DataError, reason
from digitlab.text.files import read_file

Bytes = npt.NDArray[np.uint8]
NUM_CLASSES = 10
SIDE = 28
MAX_BYTES = 64_000_000  # of a file, packed or not: the largest has 47 million

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# SHA-256 over shape and bytes of the decoded arrays: see `digest`.
DIGESTS = {
    "digits": {
        "train-images-idx3-ubyte": "24977a4cddcdc73d2d21c9f9a96c6e14d05b9ae48c726fc6be020dd2eb39fc6e",
        "train-labels-idx1-ubyte": "e816f390f2f459ae4b3c8d6bc2f643551dbcda75bf5cc5d6135f1e66b644ead4",
        "t10k-images-idx3-ubyte": "262400be5f7c5e8e6d86735e4b790eb9fb88f821654fe067977f5411a0e7db9e",
        "t10k-labels-idx1-ubyte": "9d6ce02817ec729330022a274b561539158f5b3a1961f2e15c19f57c838d2e3e",
    },
    "mnist": {
        "train-images-idx3-ubyte": "783b1c0807cfc66ca1ef125e96f8a41ab816d75b1d8d28920718b6428b08cb9e",
        "train-labels-idx1-ubyte": "a79c46cff32cade98d7ade6d1dab8916171d8d1c65cb276c8998bc34d3e2707b",
        "t10k-images-idx3-ubyte": "010c0c13f96d5658bae4c04d605aa85a9ac8bc6ce619f5cb5f05aeb402f41514",
        "t10k-labels-idx1-ubyte": "b3b5727c195d9df958a13e9da4e1717a11307903ed50d26abca19d49bb33a8cb",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "d8ad9132a5971887b9275bd3d8e20fc26c599fbad1814014e960b8e10b53d165",
        "train-labels-idx1-ubyte": "3a5a898e8a129e0538eafde7302d0b5bd11e09099e7f981c578c725047895b03",
        "t10k-images-idx3-ubyte": "3194b88e5a57832ccf9bc8ffc11e1c3d7ccf2c411d27352dcfbfc4afa29c2ce5",
        "t10k-labels-idx1-ubyte": "b943cf13d75a9c055f388d561d683bed74ca5ce259ad23b9655e45af2ff9e771",
    },
}
# Of this one only the MD5 of the packed files is published (torchvision 0.29, datasets/mnist.py).
PACKED_MD5 = {
    "kmnist": {
        "train-images-idx3-ubyte": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte": "7320c461ea6c1c855c0b718fb2a4b134",
    },
}
CLASS_NAMES = {
    "fashion_mnist": [
        *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Boot"),
    ],
    "kmnist": ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
}


def class_names(name: str) -> list[str]:
    return CLASS_NAMES.get(name, [str(digit) for digit in range(NUM_CLASSES)])


def read_verified(name: str, root: Path) -> tuple[dict[str, tuple[Bytes, Bytes]], dict[str, str]]:
    """Images (N, 28, 28) and labels (N,) of `train` and `test`, and the SHA-256 of each of the four.

    Downloads the set into `root` if none of its files is there.

    Raises:
        DataError: a file is missing, damaged or not what it should be: which, and what to do.
    """
    with _refusals_explained(root):
        arrays = {split: _read(name, split, root) for split in FILES}
    digests = {}
    for split, pair in arrays.items():
        for kind, file, array in zip(("images", "labels"), FILES[split], pair, strict=True):
            digests[f"{split}_{kind}"] = _verify(name, file, digest(array), root)
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


def digest(array: Bytes) -> str:
    """SHA-256 of a decoded array: its shape, then its bytes."""
    found = hashlib.sha256(str(array.shape).encode())
    found.update(array.data)
    return found.hexdigest()


def raw_folder(name: str, root: Path) -> Path:
    """torchvision's layout."""
    return root / FOLDERS[name] / "raw"


def is_present(name: str, root: Path) -> bool:
    """Whether all four files are there, packed or not; `digits` always is."""
    with _refusals_explained(root):
        return name == "digits" or not _missing(name, root)


@contextmanager
def _refusals_explained(root: Path) -> Iterator[None]:
    """What the disk refuses below `root`, as one line with what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: {reason(error)}; name another folder with data.root="
        ) from None


def _read(name: str, split: str, root: Path) -> tuple[Bytes, Bytes]:
    if name == "digits":
        return read_digits(split)
    _ensure_files(name, root)
    images_file, labels_file = FILES[split]
    folder = raw_folder(name, root)
    count = NUM_TRAIN[name] if split == "train" else 10_000
    images = _read_idx(name, folder / images_file, (count, SIDE, SIDE))
    labels = _read_idx(name, folder / labels_file, (count,))
    if labels.max() >= NUM_CLASSES:
        position = int(labels.argmax())
        raise DataError(
            f"{folder / labels_file}: label {labels[position]} at position {position}, "
            f"expected 0 to {NUM_CLASSES - 1}; {_remedy(name)}"
        )
    return images, labels


def _read_idx(name: str, file: Path, shape: tuple[int, ...]) -> Bytes:
    """One IDX file (http://yann.lecun.com/exdb/mnist): big-endian magic, shape, then the bytes."""
    packed = file.with_name(file.name + ".gz")
    content = _unpack(name, packed) if packed.exists() and _needs_packed(name, file) else None
    if content is None:
        content = read_file(file, MAX_BYTES)
    elif file.exists() and read_file(file, MAX_BYTES) != content:
        raise DataError(f"{file}: differs from {packed.name} beside it; {_remedy(name)}")
    header = 4 + 4 * len(shape)
    expected = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4) for n in shape)
    if content[:4] != expected[:4]:
        raise DataError(
            f"{file}: starts with {content[:4]!r}, expected {expected[:4]!r} (an IDX file of bytes in "
            f"{len(shape)} dimensions); {_remedy(name)}"
        )
    found = tuple(np.frombuffer(content[4:header], dtype=">u4").tolist())
    if content[:header] != expected:
        raise DataError(f"{file}: holds an array of shape {found}, expected {shape}; {_remedy(name)}")
    if len(content) - header != np.prod(shape):
        raise DataError(
            f"{file}: holds {len(content)} bytes, expected {header + np.prod(shape)}; {_remedy(name)}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy()


def _needs_packed(name: str, file: Path) -> bool:
    """KMNIST's files are checked by the digests of the packed ones, all others by their own."""
    return name in PACKED_MD5 or not file.exists()


def _unpack(name: str, packed: Path) -> bytes:
    content = read_file(packed, MAX_BYTES)
    if name in PACKED_MD5:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        expected = PACKED_MD5[name][packed.stem]
        if found != expected:
            raise DataError(f"{packed}: MD5 {found}, expected {expected}; {_remedy(name)}")
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{packed}: cannot be unpacked ({error}); {_remedy(name)}") from None


def _ensure_files(name: str, root: Path) -> None:
    """Download the set if no file of it is there; refuse a stale or incomplete folder."""
    for stale in (root / FOLDERS[name] / "processed").glob("*.pt"):
        raise DataError(
            f"{stale}: a copy that torchvision would prefer silently to the checked files in raw/, "
            "expected none; delete it"
        )
    missing = _missing(name, root)
    if len(missing) == 4:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            if _missing(name, root):
                _download(name, root)
    elif missing:
        raise DataError(
            f"{raw_folder(name, root)}: {', '.join(missing)} missing, expected 4 files; "
            "put them there, or delete the folder to download all of them again"
        )


def _missing(name: str, root: Path) -> list[str]:
    folder = raw_folder(name, root)
    files = [file for pair in FILES.values() for file in pair]
    return [f for f in files if not (folder / f).exists() and not (folder / f"{f}.gz").exists()]


def _download(name: str, root: Path) -> None:
    import torchvision

    try:
        getattr(torchvision.datasets, FOLDERS[name])(root, download=True)
    except Exception as error:  # torchvision raises whatever its mirrors end with
        cause = " ".join(str(error).split()) or type(error).__name__
        for folder in (raw_folder(name, root), root / FOLDERS[name]):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise DataError(
            f"{raw_folder(name, root)}: {', '.join(_missing(name, root))} missing, "
            f"and the download failed ({cause}); put the files there "
            "(packed .gz or not), name another folder with data.root=, "
            "or train without a network on data=digits"
        ) from None


def _verify(name: str, file: str, found: str, root: Path) -> str:
    """The digest of one decoded file, if it is the known one or none is known."""
    expected = DIGESTS.get(name, {}).get(file, found)
    if found != expected:
        place = "scikit-learn's digits.csv.gz" if name == "digits" else raw_folder(name, root) / file
        raise DataError(f"{place}: SHA-256 {found}, expected {expected}: damaged; {_remedy(name)}")
    return found


def _remedy(name: str) -> str:
    if name == "digits":
        return REINSTALL
    return f"delete the {FOLDERS[name]} folder and run again to download it"
