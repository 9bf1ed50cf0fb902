"""A picture of a digit brought to the form of the images that a model was trained on.

MNIST's authors fitted each digit into 20x20 pixels, keeping its shape, and centred it in 28x28 by its
mass (LeCun, Cortes and Burges, "The MNIST database"); before that, ink has to be told from paper. Knows
no files and no models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from digitlab.data.embedded_digits import enlarge
from digitlab.data.files import SIDE, Bytes
from digitlab.errors import UsageError
from digitlab.inference.paper import (
    MIN_CONTRAST,
    WORKING_SIDE,
    Floats,
    Mask,
    at_most,
    find_page,
    otsu,
    resized,
    scaled,
)

SPECK = 0.04  # of the largest stroke's area: smaller ones are dirt
INKED = 0.15  # the least share of ink of a pixel that belongs to a digit
SHAPE = 0.4  # of the longest shape: smaller ones are parts of a digit
WIDEST = 1.5  # of a digit's height
MARGIN = 0.3  # around a digit, of its longer side


@dataclass(frozen=True, slots=True)
class Form:
    """How a data set's images were made.

    side, box: pixels of the picture and of the ink's longer side. by_mass: whether the ink is centred
    by its mass, or by its extent. thin: strokes of less pixels are widened. block: side of the squares
    that were counted, for images that were enlarged afterwards. is_one_shape: as digits are.
    """

    box: int
    side: int = SIDE
    by_mass: bool = True
    thin: float = 0.0
    block: int | None = None
    is_one_shape: bool = False


# MNIST's strokes are 3 to 5 pixels wide. The embedded digits were bitmaps of 32x32, filled from edge to
# edge, of which each square of 4x4 was counted (Alpaydin and Kaynak, 1998, for the UCI repository).
FORMS = {
    "mnist": Form(20, thin=3.0, is_one_shape=True),
    "digits": Form(32, side=32, by_mass=False, thin=4.0, block=4, is_one_shape=True),
    "fashion_mnist": Form(SIDE, by_mass=False),
    "kmnist": Form(SIDE, by_mass=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalised:
    """image: as a model takes it, (H, W) or (H, W, 3). told_from, left_out, doubts: in words."""

    image: Bytes
    told_from: str
    left_out: tuple[str, ...]
    doubts: tuple[str, ...]


class NoDigit(UsageError):  # noqa: N818  (what is wrong with the picture)
    """There is nothing on the picture to be read."""


def normalise(grey: Bytes, data_name: str) -> Normalised:
    """Grey (H, W), dark ink on bright paper or the reverse, to (28, 28), white ink (255) on black.

    Raises:
        NoDigit: the picture is empty, or nearly so.
    """
    form = FORMS[data_name]
    values = grey.astype(np.float64)
    if np.ptp(values) < MIN_CONTRAST:
        raise NoDigit("there is nothing on it: it has the same brightness everywhere")
    page = find_page(values)
    part, is_cut = _surroundings(page.bright)
    ink = _ink(at_most(page.bright[part], WORKING_SIDE))
    ink = ink[_extent(ink > INKED)]
    doubts = ["the ink reaches the border of the picture"] if is_cut or page.is_padded else []
    return Normalised(
        image=_formed(ink, form),
        told_from=page.told_from,
        left_out=page.left_out,
        doubts=(*doubts, *(_doubts_of_shape(ink > 0.5) if form.is_one_shape else ())),
    )


def _formed(ink: Floats, form: Form) -> Bytes:
    scale = form.box / max(ink.shape)
    if (width := _stroke_width(ink) * scale) < form.thin:
        ink = _widened(ink, (form.thin - width) / scale / 2)
        scale = form.box / max(ink.shape)
    placed = _place(resized(ink, scaled(ink.shape, scale)), form)
    if form.block:
        squares = placed.reshape(form.side // form.block, form.block, -1, form.block).clip(0, 1)
        counts = np.rint(squares.sum((1, 3)))
        return np.asarray(enlarge(counts[None].astype(np.uint8))[0])
    return np.asarray(np.rint(255 * placed.clip(0, 1)), dtype=np.uint8)


def as_it_is(grey: Bytes) -> Normalised:
    """A picture that has the form already, pixel by pixel.

    Raises:
        NoDigit: it is not 28x28.
    """
    if grey.shape != (SIDE, SIDE):
        height, width = grey.shape
        raise NoDigit(
            f"with --no-normalise a picture must be {SIDE} x {SIDE} pixels, white ink on black; "
            f"it is {width} x {height}"
        )
    return Normalised(
        image=grey, told_from="bright ink on dark paper, as it is", left_out=(), doubts=()
    )


def _surroundings(grey: Floats) -> tuple[tuple[slice, slice], bool]:
    """Where the ink is, with a margin: a small digit on a large sheet is looked at again, closely.

    And whether it reaches a border.
    """
    small = at_most(grey, WORKING_SIDE)
    found = _extent(_ink(small) > INKED)
    scale = max(grey.shape) / max(small.shape)
    margin = MARGIN * max(part.stop - part.start for part in found)
    rows, columns = (
        slice(max(0, int((part.start - margin) * scale)), int((part.stop + margin) * scale) + 1)
        for part in found
    )
    is_cut = any(
        part.start == 0 or part.stop == length for part, length in zip(found, small.shape, strict=True)
    )
    return (rows, columns), is_cut


def _ink(grey: Floats) -> Floats:
    """How much bright ink there is, 0 to 1: no paper, no shadows, no specks."""
    # Uneven paper: what is left when everything narrower than half the picture is taken away.
    paper = ndimage.grey_opening(grey, size=max(3, min(grey.shape) // 2), mode="nearest")
    paper = ndimage.gaussian_filter(paper, min(grey.shape) / 16, mode="nearest")
    # As a share of what can be seen there: ink in the shadow is as black as ink in the light.
    bright = 255 * (grey - paper).clip(0) / (256 - paper)
    if bright.max() < MIN_CONTRAST:
        raise NoDigit("there is no ink on it that stands out from the paper")
    is_ink = _without_specks(bright > otsu(bright))
    near = ndimage.binary_dilation(is_ink, iterations=max(1, round(max(grey.shape) / 60)))
    full = np.percentile(bright[is_ink], 90)
    noise = np.percentile(bright[~near], 95) if not near.all() else 0.0
    return np.where(near, (bright - noise) / max(full - noise, 1.0), 0.0).clip(0, 1)


def _without_specks(is_ink: Mask) -> Mask:
    labels, count = ndimage.label(is_ink, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    return np.isin(labels, np.flatnonzero(areas >= SPECK * areas.max()))


def _extent(is_ink: Mask) -> tuple[slice, slice]:
    if not is_ink.any():
        raise NoDigit("there is no ink on it that stands out from the paper")
    rows, columns = ndimage.find_objects(is_ink.astype(np.int64))[0]
    return rows, columns


def _doubts_of_shape(is_ink: Mask) -> Iterator[str]:
    labels, _ = ndimage.label(is_ink, structure=np.ones((3, 3)))
    found = ndimage.find_objects(labels)
    lengths = [max(part.stop - part.start for part in shape) for shape in found]
    shapes = [s for s, length in zip(found, lengths, strict=True) if length >= SHAPE * max(lengths)]
    count = max(_count_apart([shape[axis] for shape in shapes]) for axis in (0, 1))
    height, width = is_ink.shape
    if count > 1:
        yield f"there are {count} shapes on it, and one digit is read"
    elif width > WIDEST * height:
        yield "its ink is wider than a digit's"


def _count_apart(spans: Sequence[slice]) -> int:
    """How many groups there are that do not overlap."""
    count, end = 0, 0
    for span in sorted(spans, key=lambda span: span.start):
        count += span.start >= end
        end = max(end, span.stop)
    return count


def _stroke_width(ink: Floats) -> float:
    """In pixels: in a bar of width w the mean distance to its edge is w / 4."""
    distances = ndimage.distance_transform_edt(np.pad(ink > 0.5, 1))
    inside = distances[distances > 0]
    return 4 * float(inside.mean()) if inside.size else 0.0


def _widened(ink: Floats, by: float) -> Floats:
    """By so many pixels on each side."""
    edge = int(np.ceil(by))
    y, x = np.mgrid[-edge : edge + 1, -edge : edge + 1]
    disc = np.hypot(y, x) <= max(by, 0.5)
    return np.asarray(ndimage.grey_dilation(np.pad(ink, edge), footprint=disc))


def _place(ink: Floats, form: Form) -> Floats:
    """The centre of mass at the middle, pixel (14, 14) in MNIST, as far as nothing is cut off."""
    ink = ink[: form.side, : form.side].clip(0)
    room = [form.side - length for length in ink.shape]
    offsets = [space // 2 for space in room]
    if form.by_mass and ink.sum() > 0:
        offsets = [round(form.side / 2 - centre) for centre in ndimage.center_of_mass(ink)]
    top, left = (min(max(o, 0), space) for o, space in zip(offsets, room, strict=True))
    placed = np.zeros((form.side, form.side))
    placed[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return placed
