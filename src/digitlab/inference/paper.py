"""Where a picture's paper is: the sheet without what surrounds it, and without its printed lines.

Knows brightness and shapes, no digits.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MIN_CONTRAST = 24  # of 255; paper's own noise is below
EVEN = 0.9  # of _two_tones: paper without shadows
WORKING_SIDE = 256  # pixels: enough to find a digit in
MIN_SHEET = 0.1  # of the picture's area
MIN_FILLED = 0.85  # of a sheet's smallest rectangle: an ellipse fills 0.79
MIN_WHOLE = 0.7  # of a sheet: the rest is ink that reaches its edge
MAX_ELSEWHERE = 0.6  # of a sheet's area: more of the same brightness is no surroundings
MIN_INK = 0.004  # of a sheet: less is dirt
MAX_INK = 0.4
MIN_DEPTH = 0.25  # of a sheet's side: how far ink reaches that comes from its edge
MIN_FREE = 1.9  # half-widths of a stroke: the width of the paper that is free of ink
MIN_LENGTH = 7  # of a stroke's area in squares of its half-width: a disc has 3.1
MIN_STEP = 0.4  # of the contrast, at a sheet's edge: a shadow's edge is softer
EDGE = 3  # pixels of a sheet's edge that are neither one nor the other
THIN = 0.02  # of the picture's longer side: no line is wider


@dataclass(frozen=True, slots=True)
class Page:
    """bright: (H, W), the paper dark and its ink bright. is_padded: its ink reached the border.

    told_from, left_out: in a user's words.
    """

    bright: Floats
    is_padded: bool
    told_from: str
    left_out: tuple[str, ...]


def find_page(grey: Floats) -> Page:
    """Grey (H, W), dark ink on bright paper or the reverse."""
    left_out = []
    small = at_most(grey, WORKING_SIDE)
    if (sheet := find_sheet(small)) is not None:
        is_paper_bright = True
    elif (sheet := find_sheet(255 - small)) is not None:
        is_paper_bright = False
    else:
        is_paper_bright = _is_paper_bright(grey)
    if sheet is not None:
        left_out.append("what surrounds the sheet")
        grey = _continued_from(sheet, grey)
    bright, had_lines = without_lines(255 - grey if is_paper_bright else grey)
    if had_lines:
        left_out.append("lines from border to border")
    told_from = "dark ink on bright paper" if is_paper_bright else "bright ink on dark paper"
    padded = _padded(bright)
    return Page(padded, padded.shape != bright.shape, told_from, tuple(left_out))


def otsu(values: Floats) -> float:
    """The threshold that parts values into two classes of least variance within (Otsu, 1979)."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    mean_below = (counts * centres).cumsum() / np.maximum(below, 1)
    mean_above = (counts * centres)[::-1].cumsum()[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    best = np.flatnonzero(between == between.max())  # a clean picture has many as good: the middle
    return float(edges[1 + best].mean())


def _two_tones(values: Floats) -> float:
    """The share of the variance that the two classes of `otsu` explain: 1 for a bitmap."""
    is_high = values > otsu(values)
    share = is_high.mean()
    if not 0 < share < 1:
        return 0.0
    step = values[is_high].mean() - values[~is_high].mean()
    return float(share * (1 - share) * step**2 / values.var())


def find_sheet(bright: Floats) -> Mask | None:
    """(H, W): where a bright sheet with darker ink on it lies; None if it is all of the picture.

    A sheet is convex, nearly a rectangle, ends sharply, and what is on it are strokes.
    """
    is_paper = bright > otsu(bright)
    whole = ndimage.binary_fill_holes(_largest(is_paper))
    sheet, filled = _hull(whole)
    area = sheet.sum()
    is_sheet = (
        not sheet.all()
        and area > MIN_SHEET * sheet.size
        and filled > MIN_FILLED
        and whole.sum() > MIN_WHOLE * area
        and (is_paper & ~sheet).sum() < MAX_ELSEWHERE * area
        and _ends_sharply(sheet, bright, is_paper)
    )
    inside = ndimage.binary_erosion(sheet, iterations=EDGE, border_value=1)
    return inside if is_sheet and _holds_strokes(inside, is_paper) else None


def _ends_sharply(sheet: Mask, bright: Floats, is_paper: Mask) -> bool:
    edge = sheet & ~ndimage.binary_erosion(sheet, border_value=1)
    smooth, size = ndimage.gaussian_filter(bright, 1), 2 * EDGE + 1
    steps = ndimage.maximum_filter(smooth, size) - ndimage.minimum_filter(smooth, size)
    contrast = bright[is_paper].mean() - bright[~is_paper].mean()
    return bool(np.median(steps[edge]) > MIN_STEP * contrast)


def _holds_strokes(sheet: Mask, is_paper: Mask) -> bool:
    """Not so the inside of a ring, which is no narrower than the ring, nor the bays of a stroke."""
    ink = sheet & ~is_paper
    stroke = _largest(ink)
    if stroke.sum() < MIN_INK * sheet.sum() or ink.sum() > MAX_INK * sheet.sum():
        return False
    depth = ndimage.distance_transform_edt(np.pad(sheet, 1))[1:-1, 1:-1]
    is_at_edge = bool((stroke & (depth <= 2)).any())
    if is_at_edge and depth[stroke].max() < MIN_DEPTH * np.sqrt(sheet.sum()):
        return False
    width = ndimage.distance_transform_edt(np.pad(stroke, 1)).max()
    free = ndimage.distance_transform_edt(np.pad(sheet & is_paper, 1)).max()
    return bool(free > MIN_FREE * width and stroke.sum() > MIN_LENGTH * width**2)


def _is_paper_bright(grey: Floats) -> bool:
    is_bright = grey > otsu(grey)
    border = np.concatenate([is_bright[0], is_bright[-1], is_bright[1:-1, 0], is_bright[1:-1, -1]])
    corners = int(is_bright[[0, 0, -1, -1], [0, -1, 0, -1]].sum())
    if corners != 2 and _two_tones(grey) > EVEN:  # ink may touch all borders
        return corners > 2
    return float(np.median(border)) > 0.5


def _padded(bright: Floats) -> Floats:
    """With paper around it, where its ink touches the border and no shadow passes for ink."""
    is_ink = bright > otsu(bright)
    is_paper = ~ndimage.binary_dilation(is_ink)
    touches = is_ink[[0, -1]].any() or is_ink[:, [0, -1]].any()
    if not touches or not is_paper.any() or _two_tones(bright) < EVEN:
        return bright
    by = max(bright.shape) // 4 + 2
    padded = _continued(np.pad(bright, by), np.pad(is_paper, by))
    padded[by:-by, by:-by] = bright
    return padded


def _continued_from(sheet: Mask, grey: Floats) -> Floats:
    """The part of a picture where its sheet is; sheet: of the picture made smaller."""
    rows, columns = (
        np.arange(length) * few // length for length, few in zip(grey.shape, sheet.shape, strict=True)
    )
    is_sheet = sheet[np.ix_(rows, columns)]
    part = ndimage.find_objects(is_sheet.astype(np.int64))[0]
    return _continued(grey[part], is_sheet[part])


def _continued(values: Floats, known: Mask) -> Floats:
    """Elsewhere the value of the nearest pixel that is known."""
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)])


def without_lines(bright: Floats) -> tuple[Floats, bool]:
    """Bright ink without thin lines that run from border to border, and whether there were any."""
    across, some_across = _without_horizontal(bright)
    both, some_down = _without_horizontal(across.T)
    return both.T, some_across or some_down


def _without_horizontal(bright: Floats) -> tuple[Floats, bool]:
    height, width = bright.shape
    thin = max(3, round(THIN * max(height, width)))
    if min(height, width) < 4 * thin:
        return bright, False
    # Widened first, so that a line may be turned a little; ink that it crosses does not end it.
    wide = ndimage.grey_dilation(bright, size=(thin, 1), mode="nearest")
    long = ndimage.grey_opening(wide, size=(1, width // 3), mode="nearest")
    lines = long - ndimage.grey_opening(long, size=(3 * thin, 1), mode="nearest")
    labels, _ = ndimage.label(lines > MIN_CONTRAST / 2, structure=np.ones((3, 3)))
    crossing = np.intersect1d(labels[:, 0], labels[:, -1])
    crossing = crossing[crossing > 0]
    if not crossing.size:
        return bright, False
    thick = ndimage.grey_opening(bright, size=(thin, 1), mode="nearest")
    return np.where(np.isin(labels, crossing), np.minimum(bright, thick), bright), True


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return np.asarray(labels == areas.argmax())


def _hull(mask: Mask) -> tuple[Mask, float]:
    """The convex hull, and how much of its smallest rectangle it fills."""
    rows = np.flatnonzero(mask.any(1))
    ends = [(row, column) for row in rows for column in np.flatnonzero(mask[row])[[0, -1]]]
    try:
        hull = ConvexHull(np.array(ends))
    except (QhullError, ValueError):
        return mask, 0.0
    corners = hull.points[hull.vertices]
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    inside = np.ones(mask.shape, dtype=bool)
    for a, b, c in hull.equations:
        inside &= a * y + b * x + c <= 0.5
    areas = []
    for a, b, _ in hull.equations:
        turned = corners @ np.array([[a, -b], [b, a]])
        areas.append(float(np.prod(np.ptp(turned, axis=0) + 1)))
    return inside, float(inside.sum()) / min(areas)


def at_most(grey: Floats, side: int) -> Floats:
    if max(grey.shape) <= side:
        return grey
    scale = side / max(grey.shape)
    return resized(grey, scaled(grey.shape, scale))


def scaled(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    height, width = (max(1, round(side * scale)) for side in shape)
    return height, width


def resized(values: Floats, shape: tuple[int, int]) -> Floats:
    """With antialiasing, as Pillow does it."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), dtype=np.float64)
