"""Real digits as people photograph and scan them: what a reader of pictures is measured on."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Generator = np.random.Generator


def clean_scan(digit: np.ndarray, generator: Generator) -> Image.Image:
    """Dark ink on even paper, with a scanner's noise."""
    return _noisy(_sheet(digit, generator), 2, generator)


def white_on_black(digit: np.ndarray, generator: Generator) -> Image.Image:
    return Image.fromarray(255 - np.asarray(clean_scan(digit, generator)))


def photograph(digit: np.ndarray, generator: Generator) -> Image.Image:
    """The light falls off to one side, to a half at the most."""
    pixels = np.asarray(_sheet(digit, generator), dtype=np.float64)
    angle, least = generator.uniform(0, 2 * np.pi), generator.uniform(0.5, 0.9)
    y, x = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    light = 1 - (1 - least) * (1 + (x * np.cos(angle) + y * np.sin(angle)) / 1.5) / 2
    return _noisy(Image.fromarray((pixels * light).astype(np.uint8)), 5, generator)


def dark_desk(digit: np.ndarray, generator: Generator) -> Image.Image:
    """A whole sheet, somewhat turned, on a dark desk; it may reach out of the picture."""
    sheet = _sheet(digit, generator)
    desk = int(generator.integers(15, 110))
    turned = sheet.rotate(
        generator.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True, fillcolor=desk
    )
    scale = generator.uniform(1.1, 2.0)
    width, height = (int(scale * side) for side in turned.size)
    picture = Image.new("L", (width, height), desk)
    reach = 0.08
    picture.paste(
        turned,
        (
            int(generator.uniform(-reach * turned.width, width - (1 - reach) * turned.width)),
            int(generator.uniform(-reach * turned.height, height - (1 - reach) * turned.height)),
        ),
    )
    return _noisy(picture, 4, generator)


def black_frame(digit: np.ndarray, generator: Generator) -> Image.Image:
    sheet = _sheet(digit, generator)
    pen = ImageDraw.Draw(sheet)
    inset = int(generator.choice([0, 0, 12]))  # a frame may have paper around it
    thick = int(generator.integers(3, 25))
    box = (inset, inset, sheet.width - 1 - inset, sheet.height - 1 - inset)
    pen.rectangle(box, outline=int(generator.integers(0, 60)), width=thick)
    return _noisy(sheet, 2, generator)


def scanner_edge(digit: np.ndarray, generator: Generator) -> Image.Image:
    """Black where the lid did not close, on one side or two."""
    sheet = _sheet(digit, generator)
    pen = ImageDraw.Draw(sheet)
    width, height = sheet.size
    for side in generator.choice(4, size=int(generator.integers(1, 3)), replace=False):
        thick = int(generator.integers(4, 40))
        slant = int(generator.integers(0, 8))
        corners = {
            0: [(0, 0), (thick, 0), (thick + slant, height), (0, height)],
            1: [(width, 0), (width - thick, 0), (width - thick - slant, height), (width, height)],
            2: [(0, 0), (0, thick), (width, thick + slant), (width, 0)],
            3: [(0, height), (0, height - thick), (width, height - thick - slant), (width, height)],
        }[int(side)]
        pen.polygon(corners, fill=int(generator.integers(0, 40)))
    return _noisy(sheet, 2, generator)


def squared_paper(digit: np.ndarray, generator: Generator) -> Image.Image:
    return _lined(digit, generator, across=True)


def ruled_paper(digit: np.ndarray, generator: Generator) -> Image.Image:
    return _lined(digit, generator, across=False)


def edge_to_edge(digit: np.ndarray, generator: Generator) -> Image.Image:
    """A bitmap of 16x16 that the digit fills, as in the UCI's Semeion set, dark or bright."""
    box = Image.fromarray(digit).getbbox()
    small = Image.fromarray(digit).crop(box).resize((16, 16), Image.Resampling.BOX)
    ink = np.where(np.asarray(small) > 80, 255, 0).astype(np.uint8)
    pixels = ink if generator.integers(2) else 255 - ink
    side = int(generator.choice([16, 37, 58, 160]))
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


BACKGROUNDS: dict[str, Callable[[np.ndarray, Generator], Image.Image]] = {
    made.__name__: made
    for made in (
        *(clean_scan, white_on_black, photograph, dark_desk, black_frame, scanner_edge),
        *(squared_paper, ruled_paper, edge_to_edge),
    )
}


def side_by_side(first: np.ndarray, second: np.ndarray, generator: Generator) -> Image.Image:
    """Two digits on one sheet."""
    left, right = (_sheet(digit, generator, paper=235) for digit in (first, second))
    sheet = Image.new("L", (left.width + right.width, max(left.height, right.height)), 235)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width, 0))
    return _noisy(sheet, 2, generator)


def _sheet(digit: np.ndarray, generator: Generator, *, paper: int | None = None) -> Image.Image:
    """The digit in ink somewhere on paper."""
    side = int(generator.integers(110, 300))  # of which a digit takes about two thirds
    larger = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    share = np.clip((np.asarray(larger, dtype=np.float64) - 60) / 130, 0, 1)  # a pen's sharp edge
    bright = paper or int(generator.integers(215, 250))
    ink = int(generator.integers(20, 90))
    width, height = (int(side * generator.uniform(1.0, 2.2)) for _ in range(2))
    pixels = np.full((height, width), float(bright))
    top, left = (int(generator.integers(0, space - side + 1)) for space in (height, width))
    part = pixels[top : top + side, left : left + side]
    part += share * (ink - bright)
    return Image.fromarray(pixels.astype(np.uint8))


def _lined(digit: np.ndarray, generator: Generator, *, across: bool) -> Image.Image:
    sheet = _sheet(digit, generator)
    lines = Image.new("L", sheet.size, 255)
    pen = ImageDraw.Draw(lines)
    step, thick = int(generator.integers(24, 70)), int(generator.integers(1, 4))
    grey = int(generator.integers(90, 200))
    for y in range(int(generator.integers(step)), sheet.height, step):
        pen.line([(0, y), (sheet.width, y)], fill=grey, width=thick)
    for x in range(int(generator.integers(step)), sheet.width, step) if across else ():
        pen.line([(x, 0), (x, sheet.height)], fill=grey, width=thick)
    return _noisy(Image.fromarray(np.minimum(np.asarray(sheet), np.asarray(lines))), 2, generator)


def _noisy(picture: Image.Image, strength: float, generator: Generator) -> Image.Image:
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float64)
    return Image.fromarray(
        (blurred + generator.normal(0, strength, blurred.shape)).clip(0, 255).astype(np.uint8)
    )
