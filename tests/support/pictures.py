"""Small data sets that a test makes: bars at angles that a model can tell apart, and files of them."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

TYPES = {"uint8": 8, "int32": 12, "int64": 12}


def pictures(*, per_class: int, classes: int, side: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, side, side) and labels (N,), classes in turn: a bar at an angle, and noise."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    images, labels = [], np.arange(per_class * classes) % classes
    for label in labels:
        angle = np.pi * label / classes
        distance = np.abs(x * np.sin(angle) - y * np.cos(angle) + generator.uniform(-2, 2))
        bar = 230.0 * (distance < side / 12)
        images.append((bar + generator.uniform(0, 25, (side, side))).astype(np.uint8))
    return np.stack(images), labels


def write_folder(root: Path, images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """PNGs `NAME/000.png`, numbered by class."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for place, row in enumerate(np.flatnonzero(labels == label)):
            Image.fromarray(images[row]).save(root / name / f"{place:03}.png")


def idx_bytes(array: np.ndarray) -> bytes:
    kind = TYPES[array.dtype.name] if array.dtype.name != "int64" or array.max() > 255 else 8
    header = bytes([0, 0, kind, array.ndim]) + b"".join(n.to_bytes(4) for n in array.shape)
    return header + array.astype({8: "u1", 12: ">i4"}[kind]).tobytes()


def write_every_form(root: Path) -> dict[str, str]:
    """The same 24 training and 6 test images of ten classes in each form, by the form's name."""
    images, labels = pictures(per_class=3, classes=10)
    arrays = {}
    (root / "idx").mkdir()
    (root / "csv").mkdir()
    for split, part in {"train": slice(0, 24), "test": slice(24, 30)}.items():
        arrays |= {f"x_{split}": images[part], f"y_{split}": labels[part]}
        write_folder(root / "folder" / split, images[part], labels[part], [*map(str, range(10))])
        for what, array in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            (root / "idx" / f"{split}-{what}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array)))
        table = np.column_stack([labels[part], images[part].reshape(-1, 784)])
        np.savetxt(root / "csv" / f"{split}.csv", table, fmt="%d", delimiter=",")
    np.savez(root / "set.npz", **arrays)
    return {"npz": "set.npz", "idx": "idx", "csv": "csv", "folder": "folder"}
