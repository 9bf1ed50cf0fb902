"""A pair of IDX files, images and labels, or one for train and one for test: EMNIST, QMNIST, USPS.

Packed (.gz) or not. Labels need not begin at 0: they become classes, named by the labels.
"""

import re
from pathlib import Path

from digitlab.data import idx
from digitlab.data.checks import labelled, raise_all
from digitlab.data.image_data import Array, ImageData, Labelled, of_pairs
from digitlab.errors import DataError, reason
from digitlab.text.files import read_file

MAX_BYTES = 4_000_000_000  # of a file, packed or not
TEST = re.compile(r"t10k|test")
NAMES = "names with train or test (or t10k), and images or labels: train-images-idx3-ubyte(.gz)"


def load(path: Path, *, test_fraction: float, test_seed: int) -> ImageData:
    """path: a folder, or the beginning that names of files have in common (emnist/emnist-letters).

    Without files for test those there are are split by the seed.

    Raises:
        DataError: what is missing or wrong, and what it should be.
    """
    found = _pairs(path)
    pairs = [_read_pair(*files) for files in found]
    return of_pairs(pairs, fraction=test_fraction, seed=test_seed)


def _pairs(path: Path) -> list[tuple[Path, Path]]:
    """Images and labels: of train, and of test if there are files for it."""
    by_role: dict[tuple[bool, str], list[Path]] = {}
    for file in _files(path):
        name = file.name.removesuffix(".gz").lower()
        what = next((kind for kind in ("images", "labels") if kind in name), None)
        if what and "idx" in name:
            by_role.setdefault((bool(TEST.search(name)), what), []).append(file)
    problems = []
    for files in by_role.values():
        if len({file.name.removesuffix(".gz") for file in files}) > 1:
            names = ", ".join(sorted(file.name for file in files))
            problems.append(
                f"{names} are several of one kind: data.path may be the beginning of the right names"
            )
    splits = [is_test for is_test in (False, True) if any(role[0] == is_test for role in by_role)]
    for is_test in splits or [False]:
        for what in ("images", "labels"):
            if (is_test, what) not in by_role:
                split = "test" if is_test else "train"
                problems.append(f"there is no IDX file of {split} {what}, expected {NAMES}")
    raise_all(str(path), problems)
    # Of a packed and an unpacked one of the same name the latter, which takes no unpacking.
    chosen = {
        role: min(files, key=lambda file: file.suffix == ".gz") for role, files in by_role.items()
    }
    return [(chosen[is_test, "images"], chosen[is_test, "labels"]) for is_test in splits]


def _files(path: Path) -> list[Path]:
    folder, beginning = (path, "") if path.is_dir() else (path.parent, path.name)
    try:
        files = sorted(file for file in folder.iterdir() if file.name.startswith(beginning))
    except (OSError, ValueError) as error:
        said = reason(error) if isinstance(error, OSError) else str(error)
        raise DataError(f"{path}: {said}; data.path=PATH names another") from None
    if not files:
        raise DataError(f"{path}: there is no such folder or file; data.path=PATH names another")
    return files


def _read_pair(images_file: Path, labels_file: Path) -> Labelled:
    images, labels = _read(images_file), _read(labels_file)
    if labels.ndim == 2:  # QMNIST: the class, then who wrote it
        labels = labels[:, 0]
    names = {"images_name": str(images_file), "labels_name": labels_file.name}
    return labelled(images, labels, **names, kinds="iu")


def _read(file: Path) -> Array:
    try:
        content = read_file(file, MAX_BYTES)
        if file.suffix == ".gz":
            content = idx.unpacked(content, MAX_BYTES)
        return idx.decode(content)
    except OSError as error:
        raise DataError(f"{file}: {reason(error)}") from None
    except ValueError as error:
        raise DataError(f"{file}: {error}") from None
