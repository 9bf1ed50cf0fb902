"""Images and labels in memory, as any loader gives them, and what loaders share in making them.

Knows no files and no torch.
"""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Labelled = tuple[Array, Array]


@dataclasses.dataclass(frozen=True, slots=True)
class ImageData:
    """A data set as arrays: what a loader gives, ours or a user's own.

    train, test: images uint8 (N, H, W), or (N, H, W, 3) in colour, 0 black to 255; and labels (N,),
    integers that number `class_names` from 0. Validation images are taken from train later.
    origins: what messages call each image of train and of test, a file or a number of a row.
    notes: what a user should know of how it was read.
    """

    train: Labelled
    test: Labelled
    class_names: list[str]
    origins: tuple[Sequence[Any], Sequence[Any]] | None = None
    notes: tuple[str, ...] = ()

    def origin(self, split: int, place: int) -> str:
        """What messages call an image. split: 0 for train, 1 for test."""
        if self.origins is None:
            return f"{('train', 'test')[split]} image {place}"
        named = self.origins[split][place]
        return named if isinstance(named, str) else f"row {named}"


def to_classes(*labels: Array) -> tuple[list[Array], list[str]]:
    """Labels of any kind as numbers of classes from 0, and the classes' names: the labels as text.

    Labels that are integers, or texts of integers, come in their order as numbers.
    """
    values, numbers = np.unique(np.concatenate(labels), return_inverse=True)
    names = [str(value) for value in values.tolist()]
    order = np.array([names.index(name) for name in in_order(names)], dtype=np.int64)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    ends = np.cumsum([len(each) for each in labels])[:-1]
    return np.split(rank[numbers.reshape(-1)], ends), [names[place] for place in order]


def in_order(names: Sequence[str]) -> list[str]:
    """As numbers if all of them are, else by text: classes 2 and 10, not 10 and 2."""
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def held_out(
    labels: Array, keys: Sequence[str], *, fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Which images become the test split: of each class that fraction, and of two at least one.

    They are those with the smallest SHA-256 of seed and key, so that most stay where they are when
    images are added. keys: what names each image.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for place, label in enumerate(labels.tolist()):
        by_class[label].append(place)
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for places in by_class.values():
        count = max(round(len(places) * fraction), int(len(places) > 1 and fraction > 0))
        ranked = sorted(places, key=lambda place: _rank(seed, keys[place]))
        chosen[ranked[:count]] = True
    return chosen


def split_by_seed(
    images: Array,
    labels: Array,
    class_names: list[str],
    *,
    fraction: float,
    seed: int,
    origins: Sequence[str] | None = None,
    notes: tuple[str, ...] = (),
) -> ImageData:
    """Data of one piece as train and test. origins: what names each image; None: its row, from 0."""
    keys = origins or [str(row) for row in range(len(labels))]
    is_test = held_out(labels, keys, fraction=fraction, seed=seed)
    named: Sequence[Any] = origins or range(len(labels))
    rows = [np.flatnonzero(is_test == chosen).tolist() for chosen in (False, True)]
    train, test = ((images[part], labels[part]) for part in rows)
    places = ([named[row] for row in rows[0]], [named[row] for row in rows[1]])
    return ImageData(train, test, class_names, places, notes)


def of_pairs(
    pairs: Sequence[Labelled], *, fraction: float, seed: int, notes: tuple[str, ...] = ()
) -> ImageData:
    """Of images and labels as a file has them: of train and of test, or one pair, to be split."""
    labels, class_names = to_classes(*(own for _, own in pairs))
    if len(pairs) == 1:
        images = pairs[0][0]
        return split_by_seed(images, labels[0], class_names, fraction=fraction, seed=seed, notes=notes)
    train, test = ((images, own) for (images, _), own in zip(pairs, labels, strict=True))
    return ImageData(train, test, class_names, (range(len(train[1])), range(len(test[1]))), notes)


def _rank(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"test split {seed} {key}".encode(errors="surrogateescape")).digest()
