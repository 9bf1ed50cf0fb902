"""The pictures that a command line names: files, folders, standard input. Knows nothing of digits."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from digitlab.data.image_files import (
    MAX_BYTES,
    Bytes,
    Colour,
    decode_picture,
    is_image,
    read_picture,
)
from digitlab.errors import UsageError

STDIN = "-"


def expand(paths: Sequence[str]) -> Iterator[str]:
    """The files meant: a folder stands for its images, sorted; anything else for itself.

    So does a folder without images, or that cannot be read: `read` says why, and the others are
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


def read(name: str, colour: Colour = "grey") -> Bytes:
    """A file, or `-` for standard input, (H, W) or (H, W, 3). Raises RefusedImage with the reason."""
    if name == STDIN:
        return decode_picture(sys.stdin.buffer.read(MAX_BYTES + 1), colour)
    return read_picture(name, colour)


def _is_missing(name: str) -> bool:
    """Not so what cannot be looked at: `read` says why. Path.exists() raises for some of it."""
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
        return [str(file) for file in sorted(Path(name).iterdir()) if is_image(file)]
    except (OSError, ValueError):
        return []
