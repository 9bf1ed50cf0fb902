"""What is wrong with a data set, whoever made it: everything at once, before anything trains.

Judges arrays; what cannot be read at all its loader says.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from digitlab.data.image_data import Array, ImageData, Labelled
from digitlab.errors import DataError

MIN_SIDE, MAX_SIDE = 8, 256
MAX_CLASSES = 1000
MAX_NAME = 100  # characters of a class's name
IMBALANCE = 10  # images of the largest class for one of the smallest
MAX_PROBLEMS = 20
MAX_NAMED = 5
SPLITS = ("train", "test")


def raise_all(where: str, problems: Sequence[str]) -> None:
    """Raises DataError with every problem, one a line; nothing if there is none."""
    if not problems:
        return
    more = len(problems) - MAX_PROBLEMS
    shown = [*problems[:MAX_PROBLEMS], *([f"... and {more} more problems"] if more > 0 else [])]
    raise DataError("\n".join(f"{where}: {problem}" for problem in shown))


def problems_of(data: ImageData) -> list[str]:
    """All reasons to refuse it, one sentence each."""
    names = data.class_names
    found = [*of_names(names)]
    for split, pair in zip(SPLITS, (data.train, data.test), strict=True):
        found += _of_split(split, pair, len(names))
    if found:
        return found
    shapes = [images.shape[1:] for images, _ in (data.train, data.test)]
    if shapes[0] != shapes[1]:
        found.append(f"train has images of {shown_shape(shapes[0])}, test of {shown_shape(shapes[1])}")
    if problem := of_shape(shapes[0]):
        found.append(f"images are {shown_shape(shapes[0])}: {problem}")
    counts = np.bincount(data.train[1], minlength=len(names))
    if empty := [names[place] for place in np.flatnonzero(counts == 0)]:
        found.append(f"no training images of {listed(empty)}: every class needs some")
    return found


def warnings_of(data: ImageData) -> list[str]:
    """What a user should know though it is not refused, of data without problems."""
    names = data.class_names
    counts = np.bincount(data.train[1], minlength=len(names))
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    found = list(data.notes)
    if counts[largest] > IMBALANCE * counts[smallest]:
        found.append(
            f"classes are of very different sizes: {counts[largest]:,} training images of "
            f"{names[largest]}, {counts[smallest]:,} of {names[smallest]}; accuracy says little of the "
            "small ones, the confusion matrix shows each"
        )
    of_test = np.bincount(data.test[1], minlength=len(names))
    if missing := [names[place] for place in np.flatnonzero(of_test == 0)]:
        found.append(f"no test images of {listed(missing)}: nothing is known of how well they are read")
    if (brightest := int(data.train[0].max())) < 64:
        found.append(f"the brightest pixel is {brightest} of 255: images are not scaled here")
    if doubles := duplicates(data):
        pairs = [f"{test} is {train}" for train, test in doubles[:MAX_NAMED]]
        found.append(
            f"{len(doubles):,} test images are among the training images, too, and are no test: "
            f"{listed(pairs, len(doubles))}"
        )
    return found


def duplicates(data: ImageData) -> list[tuple[str, str]]:
    """Test images whose very pixels are trained on, as (train, test) in words, in order of test."""
    first: dict[bytes, int] = {}
    for place, image in enumerate(data.train[0]):
        first.setdefault(image.tobytes(), place)
    return [
        (data.origin(0, first[pixels]), data.origin(1, place))
        for place, image in enumerate(data.test[0])
        if (pixels := image.tobytes()) in first
    ]


def of_shape(shape: Sequence[int]) -> str | None:
    """What is wrong with the height and width of an image (H, W) or (H, W, 3)."""
    if all(MIN_SIDE <= side <= MAX_SIDE for side in shape[:2]):
        return None
    return f"each side must be {MIN_SIDE} to {MAX_SIDE} pixels; data.side=28 brings all to 28x28"


def shown_shape(shape: Sequence[int]) -> str:
    """Width first, as pictures are described: `32x28`, `32x28 in colour`."""
    return f"{shape[1]}x{shape[0]}" + (" in colour" if len(shape) == 3 else "")


def listed(names: Iterable[str], total: int | None = None) -> str:
    """The first few, and how many more. total: if only the first were given."""
    texts = list(names)
    more = (total or len(texts)) - MAX_NAMED
    return ", ".join(texts[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def as_pixels(array: Array) -> npt.NDArray[np.uint8]:
    """Whole numbers from 0 to 255 of any type as uint8. Raises ValueError with what to do else."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf" or not array.size:
        raise ValueError(f"pixels must be numbers from 0 to 255, got {array.size} of {array.dtype}")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and high <= 1 and low >= 0 and (array != np.rint(array)).any():
        raise ValueError(
            "pixels are fractions from 0 to 1, expected whole numbers from 0 to 255: "
            "save (255 * images).round().astype('uint8')"
        )
    if not (low >= 0 and high <= 255) or (array.dtype.kind == "f" and (array != np.rint(array)).any()):
        raise ValueError(
            f"pixels must be whole numbers from 0 to 255, got {array.dtype} from {low} to {high}"
        )
    return array.astype(np.uint8)


def labelled(
    images: Array, labels: Array, *, images_name: str, labels_name: str, kinds: str
) -> Labelled:
    """A pair of arrays as images and their labels, a colour of one channel taken away.

    kinds: of numpy, that labels may have: "iu" integers, "U" texts.

    Raises:
        DataError: with both names.
    """
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    is_pair = images.ndim > 0 and labels.ndim == 1 and len(images) == len(labels)
    if not is_pair or labels.dtype.kind not in kinds:
        expected = "integers or texts" if "U" in kinds else "integers"
        raise DataError(
            f"{images_name}: has the shape {images.shape} and {labels_name} {labels.shape} of "
            f"{labels.dtype}, expected as many labels as images, {expected}"
        )
    try:
        return as_pixels(images), labels
    except ValueError as error:
        raise DataError(f"{images_name}: {error}") from None


def of_names(names: Any) -> Iterator[str]:
    """What is wrong with the names of classes."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        yield f"class_names must be a list of texts, got {names!r:.80}"
        return
    if not 2 <= len(names) <= MAX_CLASSES:
        only = f" ({names[0]})" if len(names) == 1 else ""
        yield f"there must be 2 to {MAX_CLASSES:,} classes, got {len(names):,}{only}"
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        yield f"two classes have the same name: {listed(twice)}"
    if odd := [name for name in names if not 0 < len(name) <= MAX_NAME or not name.isprintable()]:
        yield f"a class's name must have 1 to {MAX_NAME} printable characters, got {odd[0]!a:.80}"


def _of_split(split: str, pair: Any, num_classes: int) -> Iterator[str]:
    if not isinstance(pair, tuple) or len(pair) != 2:
        yield f"{split} must be a tuple (images, labels), got {type(pair).__name__}"
        return
    images, labels = pair
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
        kinds = f"{type(images).__name__} and {type(labels).__name__}"
        yield f"{split} must be two numpy arrays, images and labels, got {kinds}"
        return
    if len(images.shape) < 3 or len(images) != labels.size:
        yield f"{split} has images of shape {images.shape} and labels of shape {labels.shape}"
        return
    if not len(images):
        yield f"there are no {'training' if split == 'train' else 'test'} images"
        return
    yield from _of_images(split, images)
    yield from _of_labels(split, labels, num_classes)


def _of_images(split: str, images: Array) -> Iterator[str]:
    if images.dtype != np.uint8:
        try:
            as_pixels(images)
            yield f"{split} images must be uint8, got {images.dtype}: give images.astype('uint8')"
        except ValueError as error:
            yield f"{split}: {error}"
    if images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3):
        return
    remedy = ""
    if images.ndim == 4 and images.shape[3] == 1:
        remedy = ": give images[..., 0]"
    elif images.ndim == 4 and images.shape[1] in (1, 3):
        remedy = ": channels come last, give images.transpose(0, 2, 3, 1)"
    yield (
        f"{split} images must have the shape (N, height, width) or (N, height, width, 3), got "
        f"{images.shape}{remedy}"
    )


def _of_labels(split: str, labels: Array, num_classes: int) -> Iterator[str]:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        yield f"{split} labels must be integers of shape (N,), got {labels.dtype} of {labels.shape}"
    elif len(wrong := np.flatnonzero((labels < 0) | (labels >= num_classes))):
        yield (
            f"{split} labels must be 0 to {num_classes - 1}, the places of class_names, got "
            f"{labels[wrong[0]]} at place {wrong[0]}"
            + (f" and {len(wrong) - 1:,} more" * (len(wrong) > 1))
        )
