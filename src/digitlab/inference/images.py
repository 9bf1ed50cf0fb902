"""Image files of any origin as grey pixels. Nothing is decoded before its format and size are known.

Knows nothing of digits. Pillow decodes; the limits are ours.
"""

import io
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from digitlab.datafiles import Bytes
from digitlab.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
MAX_BYTES = 20_000_000  # of a file
MAX_PIXELS = 40_000_000  # of an image: a telephone's photo has 12 million
MAX_SIDE = 1024  # larger ones are made smaller: a digit ends in 28 pixels
STDIN = "-"


class RefusedImage(UsageError):  # noqa: N818  (what happened to it)
    """A file that is no image we read, is damaged or too large: one line that says which."""


def expand(wanted: Sequence[str]) -> Iterator[str]:
    """The files meant: a folder stands for its files, sorted; anything else for itself.

    Raises:
        UsageError: a folder has no files.
    """
    for name in wanted:
        if name != STDIN and Path(name).is_dir():
            files = sorted(file for file in Path(name).iterdir() if not file.is_dir())
            if not files:
                raise UsageError(f"the folder {name} holds no files")
            yield from map(str, files)
        else:
            yield name


def read_grey(name: str) -> Bytes:
    """A file, or `-` for standard input, as grey (H, W), 0 black to 255 white.

    Transparent pixels are paper; the orientation that a camera noted is heeded; of an animation the
    first picture counts. What is larger than MAX_SIDE is made smaller.

    Raises:
        RefusedImage: with the reason.
    """
    return decode_grey(_read_bytes(name))


def decode_grey(content: bytes) -> Bytes:
    """The same of a file's content."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise RefusedImage("it is empty (0 bytes)")
    if len(content) > MAX_BYTES:
        raise RefusedImage(f"it has more than {MAX_BYTES:,} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its size is judged here
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            _check_size(image.size)
            image.draft("L", (MAX_SIDE, MAX_SIDE))  # a JPEG is decoded to no more than it takes
            image.load()
            return _grey(ImageOps.exif_transpose(image))
        except UnidentifiedImageError:
            raise RefusedImage(f"it is no image of a kind that is read: {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            raise RefusedImage(f"it has more than {MAX_PIXELS:,} pixels") from None
        except (OSError, ValueError, SyntaxError, EOFError, OverflowError, IndexError) as error:
            raise RefusedImage(f"it is damaged: {error}") from None


def _read_bytes(name: str) -> bytes:
    if name == STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        found = Path(name).stat()
        if not stat.S_ISREG(found.st_mode):
            raise RefusedImage("it is no file")  # a pipe or a device may never end
        if found.st_size > MAX_BYTES:
            raise RefusedImage(f"it has {found.st_size:,} bytes, more than {MAX_BYTES:,}")
        with Path(name).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise RefusedImage(getattr(error, "strerror", None) or str(error)) from None


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise RefusedImage("it has no pixels")
    if width * height > MAX_PIXELS:
        raise RefusedImage(f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}")


def _grey(image: "Image") -> Bytes:
    from PIL.Image import fromarray

    if image.mode.startswith("I"):  # 16 bits a pixel
        image = fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode != "P":  # a palette's numbers have no mean
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    if "A" in image.getbands() or "transparency" in image.info:
        image = _on_paper(image.convert("RGBA"))
    grey = image.convert("L")
    grey.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.array(grey)


def _on_paper(image: "Image") -> "Image":
    """Over white, or over black where the ink is bright: a white digit must not vanish."""
    from PIL.Image import alpha_composite, new

    grey, alpha = np.asarray(image.convert("L")), np.asarray(image)[..., 3]
    ink = grey[alpha > 127]
    is_bright = 0 < ink.size < alpha.size and float(np.median(ink)) > 127
    return alpha_composite(new("RGBA", image.size, "black" if is_bright else "white"), image)
