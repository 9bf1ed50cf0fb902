"""Where the files of a data set of MNIST's kind lie: torchvision's folder, or one that holds the same.

Judges a folder by what it holds, never by its name, as far as contents are known.
"""

from collections.abc import Iterator
from pathlib import Path

from digitlab.data import idx
from digitlab.data.digests import digest
from digitlab.data.known import DIGESTS, FILES, FOLDERS
from digitlab.text.files import read_file

PACKAGED = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}  # Debian's
MAX_BYTES = 64_000_000  # of a file, packed or not: the largest has 47 million
TEST_LABELS = FILES["test"][1]  # the smallest file that differs from set to set


def raw_folder(name: str, root: Path) -> Path:
    """torchvision's layout."""
    return root / FOLDERS[name] / "raw"


def folder_of(name: str, root: Path) -> Path:
    """The first folder that holds all four files, or else torchvision's.

    After torchvision's come `root` itself and the folders in it, by content, and a package's.
    """
    if not missing_in(own := raw_folder(name, root)):
        return own
    return next((f for f in _others(name, root) if not missing_in(f)), own)


def missing_in(folder: Path) -> list[str]:
    """The files of the four that are there neither packed nor unpacked."""
    files = [file for pair in FILES.values() for file in pair]
    return [f for f in files if not (folder / f).exists() and not (folder / f"{f}.gz").exists()]


def _others(name: str, root: Path) -> Iterator[Path]:
    if name in DIGESTS and root.is_dir():
        inner = sorted(folder for folder in root.iterdir() if folder.is_dir())
        yield from (folder for folder in (root, *inner) if _holds(name, folder))
    if name in PACKAGED:
        yield PACKAGED[name]


def _holds(name: str, folder: Path) -> bool:
    """Whether its labels of the test images are those of the set: all four are checked later."""
    try:
        if missing_in(folder):
            return False
        file = folder / TEST_LABELS
        if file.exists():
            content = read_file(file, MAX_BYTES)
        else:
            content = idx.unpacked(read_file(folder / f"{TEST_LABELS}.gz", MAX_BYTES), MAX_BYTES)
        return digest(idx.decode(content)) == DIGESTS[name][TEST_LABELS]
    except (OSError, ValueError):
        return False
