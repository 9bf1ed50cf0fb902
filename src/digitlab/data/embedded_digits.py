"""The data set that needs no download: scikit-learn's digits, enlarged to the size of MNIST's images.

Knows nothing of other data sets and does not check its bytes: files.py compares their digests.
"""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from digitlab.errors import DataError

REINSTALL = "install the pinned dependencies again (rm -r .venv && make setup)"
Bytes = npt.NDArray[np.uint8]


def read_digits(split: str) -> tuple[Bytes, Bytes]:
    """Images (N, 28, 28) and labels (N,) of `train` or `test`: 1,797 handwritten digits in all.

    They are scikit-learn's (UCI Optdigits, test part), read from the installed package without
    importing it (0.15 s for 2 s). Of each class the 36 images with the smallest SHA-256 of their
    position are the test split: 360 images, the same for ever.

    Raises:
        DataError: the file in the package is missing or damaged.
    """
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None, "scikit-learn is a dependency"
    assert spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error}); {REINSTALL}") from None
    labels = table[:, -1].copy()
    rank = [hashlib.sha256(str(row).encode()).digest() for row in range(len(labels))]
    test = {
        row
        for digit in range(10)
        for row in sorted(np.flatnonzero(labels == digit).tolist(), key=rank.__getitem__)[:36]
    }
    rows = [row for row in range(len(labels)) if (row in test) == (split == "test")]
    return enlarge(table[rows, :-1].reshape(-1, 8, 8)), labels[rows]


def enlarge(images: Bytes) -> Bytes:
    """(N, 8, 8) of 0..16 to (N, 28, 28) of 0..255 by bilinear interpolation.

    The weights are multiples of 1/14, so integers give the same bytes on every machine.
    """
    weights = np.zeros((28, 8), dtype=np.int64)  # in fourteenths
    for row in range(28):
        position = min(max(4 * row - 5, 0), 14 * 7)  # 14 * ((row + 0.5) * 8 / 28 - 0.5)
        low, share = divmod(position, 14)
        weights[row, low] += 14 - share
        if share:
            weights[row, low + 1] += share
    grown = weights @ images.astype(np.int64) @ weights.T  # 0 .. 16 * 14 * 14
    return ((grown * 255 + 16 * 98) // (16 * 196)).astype(np.uint8)
