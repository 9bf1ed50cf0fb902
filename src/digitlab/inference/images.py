"""Image files of any origin as grey pixels. Nothing is decoded before its format and size are known.

Knows nothing of digits. Pillow decodes; the limits are ours.
"""

import io
import os
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from digitlab.data.files import Bytes
from digitlab.errors import UsageError

FORMATS = ("PNG", "JPEG", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
MAX_BYTES = 20_000_000  # of a file
MAX_PIXELS = 25_000_000  # of an image in memory
MAX_JPEG_PIXELS = 100_000_000  # a JPEG is decoded at a quarter, or less, unless it is progressive
MAX_SCANS = 100  # of a progressive JPEG, each of which takes as long as a picture; 10 are usual
START_OF_SCAN = b"\xff\xda"
MAX_SIDE = 1024  # larger ones are made smaller: a digit ends in 28 pixels
STDIN = "-"


class RefusedImage(UsageError):  # noqa: N818  (what happened to it)
    """A file that is no image we read, is damaged or too large: one line that says which."""


def expand(paths: Sequence[str]) -> Iterator[str]:
    """The files meant: a folder stands for its images, sorted; anything else for itself.

    So does a folder without images, or that cannot be read: `read_grey` says why, and the others are
    still answered.
    """
    for name in paths:
        found = [] if name == STDIN else _images_in(name)
        yield from found or [name]


def check_any_exists(paths: Sequence[str]) -> None:
    """Before a model is loaded for seconds. Raises UsageError if none of the files is there."""
    missing = [name for name in paths if name != STDIN and _is_missing(name)]
    if len(missing) == len(paths):
        raise UsageError(f"there is no file or folder {', '.join(missing)}")


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
    if not content:
        raise RefusedImage("it is empty (0 bytes)")
    if len(content) > MAX_BYTES:
        raise RefusedImage(f"it has more than {MAX_BYTES:,} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its size is judged here
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            _check_size(image, content)
            image.draft("L", (MAX_SIDE, MAX_SIDE))  # a JPEG is decoded to no more than it takes
            image.load()
            exif = image.getexif()
            grey = Image.fromarray(_grey(image))
            grey.getexif().update(exif)
            return np.array(ImageOps.exif_transpose(grey))
        except RefusedImage:
            raise
        except UnidentifiedImageError:
            raise RefusedImage(f"it is no image of a kind that is read: {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            raise RefusedImage(f"it has more than {MAX_PIXELS:,} pixels") from None
        except MemoryError:
            raise RefusedImage("there is not enough memory for it") from None
        except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead to
            raise RefusedImage(f"it is damaged: {error}") from None


def _is_missing(name: str) -> bool:
    """Not so what cannot be looked at: `read_grey` says why. Path.exists() raises for some of it."""
    try:
        Path(name).stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _images_in(name: str) -> list[str]:
    """None of what is no folder, or cannot be read."""
    try:
        return [str(file) for file in sorted(Path(name).iterdir()) if _is_image(file)]
    except (OSError, ValueError):
        return []


def _is_image(file: Path) -> bool:
    """By its name; a Mac keeps what it notes of a file in a hidden one beside it."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _read_bytes(name: str) -> bytes:
    if name == STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        found = Path(name).stat()
        if stat.S_ISDIR(found.st_mode):
            os.scandir(name).close()  # fails with the reason, where it cannot be read
            raise RefusedImage(f"the folder holds no images ({', '.join(SUFFIXES)})")
        if not stat.S_ISREG(found.st_mode):
            raise RefusedImage("it is no file")  # a pipe or a device may never end
        if found.st_size > MAX_BYTES:
            raise RefusedImage(f"it has {found.st_size:,} bytes, more than {MAX_BYTES:,}")
        with Path(name).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise RefusedImage(getattr(error, "strerror", None) or str(error)) from None


def _check_size(image: Image.Image, content: bytes) -> None:
    width, height = image.size
    is_jpeg = image.format in ("JPEG", "MPO")  # MPO: several of them, as some telephones write
    is_reduced = is_jpeg and "progressive" not in image.info
    most = MAX_JPEG_PIXELS if is_reduced else MAX_PIXELS
    if width < 1 or height < 1:
        raise RefusedImage("it has no pixels")
    if width * height > most:
        raise RefusedImage(f"it has {width} x {height} pixels, more than {most:,}")
    if is_jpeg and (scans := content.count(START_OF_SCAN)) > MAX_SCANS:
        raise RefusedImage(f"it has {scans:,} scans, more than {MAX_SCANS}")


def _grey(image: Image.Image) -> Bytes:
    """Made small before anything else, so that it is in memory once more at the most."""
    if image.mode.startswith("I"):  # 16 bits a pixel
        step = -(-max(image.size) // MAX_SIDE)
        pixels = np.asarray(image)[::step, ::step]
        image = Image.fromarray((pixels.clip(0, 65535) // 257).astype(np.uint8))
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    small = image.convert("LA" if has_alpha else "L")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    return _on_paper(np.asarray(small)) if has_alpha else np.array(small)


def _on_paper(pixels: Bytes) -> Bytes:
    """(H, W, 2), grey and opacity, over white; over black where the ink is bright and would vanish."""
    grey, alpha = pixels[..., 0].astype(np.float64), pixels[..., 1] / 255
    ink = grey[alpha > 0.5]
    is_bright = 0 < ink.size < alpha.size and float(np.median(ink)) > 127
    paper = 0.0 if is_bright else 255.0
    return np.asarray(np.rint(alpha * grey + (1 - alpha) * paper), dtype=np.uint8)
