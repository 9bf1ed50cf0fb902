"""A folder of pictures with a folder for each class, or train/ and test/ with such folders each.

Knows nothing of other forms.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from digitlab.data.checks import (
    MAX_SIDE,
    MIN_SIDE,
    listed,
    of_names,
    of_shape,
    raise_all,
    shown_shape,
)
from digitlab.data.image_data import ImageData, in_order, split_by_seed
from digitlab.data.image_files import (
    SUFFIXES,
    Bytes,
    Colour,
    RefusedImage,
    brought_to,
    is_image,
    read_picture,
)
from digitlab.data.loaders.files import check_folder
from digitlab.errors import DataError
from digitlab.text.progress import Progress

Listing = list[tuple[str, str]]  # of pictures: path from the folder, class
VALIDATION = ("val", "valid", "validation")
LARGEST_SHARE = 0.4  # of the memory that is free: while they are stacked, pictures are there twice


def load(
    path: Path, *, side: int | None, colour: Colour, test_fraction: float, test_seed: int
) -> ImageData:
    """Raises DataError with everything that is wrong: pictures, shapes, classes."""
    found = Pictures(path)
    files = [*found.train, *found.test]
    read = _Reading(path, side, colour)
    read.all(files)
    raise_all(str(path), [*found.problems, *read.refused, *read.problems()])
    images, names = read.stacked(), [file for file, _ in files]
    number = {name: place for place, name in enumerate(found.class_names)}
    labels = np.array([number[name] for _, name in files], dtype=np.int64)
    notes = tuple(found.notes)
    if not found.is_split:
        return split_by_seed(
            images,
            labels,
            found.class_names,
            fraction=test_fraction,
            seed=test_seed,
            origins=names,
            notes=notes,
        )
    end = len(found.train)
    parts = (slice(None, end), slice(end, None))
    train, test = ((images[part], labels[part]) for part in parts)
    return ImageData(train, test, found.class_names, (names[:end], names[end:]), notes)


class Pictures:
    """What lies in a folder. is_split: it has train/ and test/; else all pictures stand in `train`."""

    def __init__(self, root: Path) -> None:
        check_folder(root)
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._root = root
        self._classes: dict[str, None] = {}
        self._left_out: Counter[str] = Counter()
        inner = _folders(root)
        self.is_split = {"train", "test"} <= set(inner)
        self.train = self._listed("train/" if self.is_split else "")
        self.test = self._listed("test/") if self.is_split else []
        self.class_names = in_order([*self._classes])
        self._judge(inner)

    def _judge(self, inner: list[str]) -> None:
        if not self._classes:
            self.problems.append("there is no folder in it, expected one for each class")
        else:
            self.problems += of_names(self.class_names)
        with_pictures = {name for _, name in self.train}
        if empty := [name for name in self.class_names if name not in with_pictures]:
            what = "training pictures" if self.is_split else "pictures"
            self.problems.append(f"no {what} ({', '.join(SUFFIXES)}) of {listed(empty)}")
        if self.is_split and not self.test:
            self.problems.append("no pictures in test/")
        if not self.is_split and "train" in inner:
            others = [name for name in inner if name in VALIDATION]
            rename = f"call {others[0]}/ test/, or " if others else ""
            self.problems.append(
                f"there is train/ and no test/: {rename}split train/ alone, with data.path=.../train"
            )
        if self.is_split and (others := [name for name in inner if name not in ("train", "test")]):
            self.notes.append(f"not used of {self._root}: {listed(f'{name}/' for name in others)}")
        if self._left_out:
            kinds = (f"{count:,} {kind}" for kind, count in self._left_out.most_common())
            self.notes.append(f"left out, since they are no pictures that are read: {listed(kinds)}")

    def _listed(self, prefix: str) -> Listing:
        classes = _folders(self._root / prefix)
        self._classes |= dict.fromkeys(classes)
        return [(file, name) for name in classes for file in self._files(f"{prefix}{name}")]

    def _files(self, inner: str) -> Iterator[str]:
        """Of a class's folder and the folders in it, in order of their names."""
        try:
            entries = sorted(os.scandir(self._root / inner), key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(f"{inner}: {error.strerror}")
            return
        for entry in entries:
            path = f"{inner}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(path)
            elif is_image(Path(entry.name)):
                yield path
            elif entry.is_symlink():
                self.problems.append(f"{path}: a link to a folder or to nothing, which is not followed")
            else:
                self._left_out[Path(entry.name).suffix or entry.name] += 1


class _Reading:
    """Pictures as they are read. refused: why some were not."""

    def __init__(self, root: Path, side: int | None, colour: Colour) -> None:
        self._root, self._side, self._colour = root, side, colour
        self._pictures: list[Bytes] = []
        self._by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
        self.refused: list[str] = []

    def all(self, files: Listing) -> None:
        progress = Progress(str(self._root), len(files), "pictures read")
        limit, size = LARGEST_SHARE * psutil.virtual_memory().available, 0
        for place, (file, _) in enumerate(files):
            progress.tell(place)
            try:
                picture = read_picture(self._root / file, self._colour)
            except RefusedImage as error:
                self.refused.append(f"{file}: {error}")
                continue
            if self._side:
                picture = brought_to(picture, (_channels(picture), self._side, self._side))
            self._by_shape[picture.shape[:2]].append(file)
            if of_shape(picture.shape) is None:  # what will be refused needs no memory
                self._pictures.append(picture)
                size += picture.nbytes
            if size > limit:
                raise DataError(
                    f"{self._root}: {place + 1:,} of {len(files):,} pictures take {size / 1e9:.1f} GB, "
                    "more than there is memory for; data.side=N makes them smaller"
                )

    def problems(self) -> Iterator[str]:
        """Of their shapes."""
        shapes = sorted(self._by_shape, key=lambda shape: -len(self._by_shape[shape]))
        if len(shapes) > 1:
            shown = (
                f"{len(self._by_shape[s]):,} of {shown_shape(s)} ({self._by_shape[s][0]})"
                for s in shapes
            )
            side = min(max(*shapes[0], MIN_SIDE), MAX_SIDE)
            yield (
                f"pictures have {len(shapes):,} shapes: {listed(shown)}; "
                f"data.side={side} brings all to {side}x{side}"
            )
        elif shapes and (problem := of_shape(shapes[0])):
            yield f"pictures are {shown_shape(shapes[0])}: {problem}"

    def stacked(self) -> Bytes:
        """(N, H, W), or (N, H, W, 3) if any of them has a colour."""
        colours = max(map(_channels, self._pictures))
        shape = (colours, *self._pictures[0].shape[:2])
        return np.stack([brought_to(picture, shape) for picture in self._pictures])


def _channels(picture: Bytes) -> int:
    return 1 if picture.ndim == 2 else 3


def _folders(root: Path) -> list[str]:
    try:
        return sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root}: {error.strerror}; data.path=PATH names another") from None
