"""Picture files of any origin as pixels, and brought to a shape.

Nothing is decoded before its format and size are known. Pillow decodes; the limits are ours. Knows
nothing of data sets.
"""

import io
import os
import stat
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from digitlab.errors import UsageError

Bytes = npt.NDArray[np.uint8]
Colour = Literal["grey", "rgb", "auto"]
FORMATS = ("PNG", "JPEG", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
MAX_BYTES = 20_000_000  # of a file
MAX_PIXELS = 25_000_000  # of an image in memory
MAX_JPEG_PIXELS = 100_000_000  # a JPEG is decoded at a quarter, or less, unless it is progressive
MAX_SCANS = 100  # of a progressive JPEG, each of which takes as long as a picture; 10 are usual
START_OF_SCAN = b"\xff\xda"
MAX_SIDE = 1024  # larger ones are made smaller


class RefusedImage(UsageError):  # noqa: N818  (what happened to it)
    """A file that is no image we read, is damaged or too large: one line that says which."""


def is_image(file: Path) -> bool:
    """By its name; a Mac keeps what it notes of a file in a hidden one beside it."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def read_picture(file: str | Path, colour: Colour = "grey") -> Bytes:
    """A file as `decode_picture` reads it. Raises RefusedImage with the reason."""
    return decode_picture(_read_bytes(file), colour)


def decode_picture(content: bytes, colour: Colour = "grey") -> Bytes:
    """A file's content as uint8, 0 black to 255: grey (H, W) or colour (H, W, 3).

    colour: `auto` gives grey where no pixel has a colour. Transparent pixels are paper; the orientation
    that a camera noted is heeded; of an animation the first picture counts. What is larger than
    MAX_SIDE is made smaller.

    Raises:
        RefusedImage: with the reason.
    """
    if not content:
        raise RefusedImage("it is empty (0 bytes)")
    if len(content) > MAX_BYTES:
        raise RefusedImage(f"it has more than {MAX_BYTES:,} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its size is judged here
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            _check_size(image, content)
            # A JPEG is decoded to no more than it takes.
            image.draft("L" if colour == "grey" else "RGB", (MAX_SIDE, MAX_SIDE))
            image.load()
            exif = image.getexif()
            pixels = Image.fromarray(_pixels(image, colour))
            pixels.getexif().update(exif)
            return np.array(ImageOps.exif_transpose(pixels))
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


def brought_to(picture: Bytes, shape: tuple[int, int, int]) -> Bytes:
    """A picture (H, W) or (H, W, 3) as an image of `shape` (channels, height, width), channels last.

    It is stretched over the whole image; each pixel is a weighted mean of what it covers, in integers,
    so that every machine gives the same bytes. Grey is taken three times for colour; colour becomes
    its brightness (ITU-R 601).
    """
    channels, height, width = shape
    image = Image.fromarray(picture)
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image)


def _read_bytes(name: str | Path) -> bytes:
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


def _pixels(image: Image.Image, colour: Colour) -> Bytes:
    """Made small before anything else, so that it is in memory once more at the most."""
    if image.mode.startswith("I"):  # 16 bits a pixel
        step = -(-max(image.size) // MAX_SIDE)
        deep = np.asarray(image)[::step, ::step]
        image = Image.fromarray((deep.clip(0, 65535) // 257).astype(np.uint8))
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    is_grey = colour == "grey" or (colour == "auto" and image.mode in ("1", "L", "LA"))
    mode = ("L" if is_grey else "RGB") + ("A" if has_alpha else "")
    small = image if image.mode == mode else image.convert(mode)
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    pixels = _on_paper(np.asarray(small), is_grey=is_grey) if has_alpha else np.array(small)
    if colour == "auto" and pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        return pixels[..., 0].copy()
    return pixels


def _on_paper(pixels: Bytes, *, is_grey: bool) -> Bytes:
    """(H, W, 2 or 4), the last of which is opacity, over white; over black where the ink is bright and
    would vanish."""
    alpha = pixels[..., -1] / 255
    colours = pixels[..., :-1].astype(np.float64)
    ink = colours.mean(axis=-1)[alpha > 0.5]
    is_bright = 0 < ink.size < alpha.size and float(np.median(ink)) > 127
    paper = 0.0 if is_bright else 255.0
    shares = alpha[..., None]
    mixed = np.asarray(np.rint(shares * colours + (1 - shares) * paper), dtype=np.uint8)
    return mixed[..., 0] if is_grey else mixed
