"""Files, read and written: what a user or a record names within bounds, ours whole or not at all.

A pipe or a device may never end, and any file may be larger than the memory. Knows no contents.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from digitlab.errors import reason


def read_file(file: Path, limit: int) -> bytes:
    """Raises OSError where it cannot be read, is no regular file, or has more than `limit` bytes."""
    # Opening a pipe would wait until another process writes into it.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(file))
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"has {status.st_size:,} bytes, more than {limit:,}", str(file))
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            return opened.read(status.st_size)
    finally:
        os.close(descriptor)


def is_file_of_some_kind(file: Path) -> bool:
    """Whether there is something other than a folder; a name that no file can have names nothing."""
    try:
        return not stat.S_ISDIR(file.stat().st_mode)
    except (OSError, ValueError):
        return False


def write_atomically(file: Path, content: str | bytes) -> None:
    """Either the old content or the new one is there, whatever happens on the way.

    Raises OSError with the file's name; also if a device or a pipe is there, which would be replaced.
    """
    with replacing(file) as handle:
        handle.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """The same for content of any size: it takes the file's place when all of it has been written."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        if file.exists() and not file.is_file():
            raise OSError(errno.EINVAL, "is no regular file")
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(file)
    except OSError as error:
        raise OSError(error.errno, reason(error), str(file)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
