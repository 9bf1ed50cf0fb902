"""IDX, the format of MNIST's files (http://yann.lecun.com/exdb/mnist), packed or not.

Big-endian: two zero bytes, the type of the numbers, how many dimensions; the shape; the numbers.
"""

import gzip
import io
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def unpacked(content: bytes, limit: int) -> bytes:
    """What gzip has packed, of `limit` bytes at the most. Raises ValueError with the reason."""
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(content)).read(limit)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot be unpacked ({error})") from None


def decode(content: bytes) -> Array:
    """The array of a file. Raises ValueError with what it holds and what was expected."""
    if content[:2] != b"\0\0" or len(content) < 4 or content[2] not in TYPES or not content[3]:
        raise ValueError(
            f"starts with {content[:4]!r}, expected an IDX file: b'\\x00\\x00', type, shape"
        )
    kind, header = np.dtype(TYPES[content[2]]), 4 + 4 * content[3]
    if len(content) < header:
        raise ValueError(f"holds {len(content)} bytes, expected at least {header}")
    shape = tuple(np.frombuffer(content[4:header], dtype=">u4").tolist())
    expected = header + kind.itemsize * _product(shape)
    if len(content) != expected:
        raise ValueError(
            f"holds {len(content)} bytes, expected {expected} for an array of shape {shape}"
        )
    numbers = np.frombuffer(content, dtype=kind, offset=header).reshape(shape)
    return numbers.astype(kind.newbyteorder("="))


def _product(shape: tuple[int, ...]) -> int:
    """In Python's integers: a damaged header must not wrap around."""
    size = 1
    for length in shape:
        size *= length
    return size
