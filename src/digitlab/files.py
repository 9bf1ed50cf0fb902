"""Files that a user or a record names, read: regular ones only, up to a bound.

A pipe or a device may never end, and any of them may be larger than the memory. Knows no contents.
"""

import errno
import os
import stat
from pathlib import Path


def read_file(file: Path, limit: int) -> bytes:
    """Raises OSError where it cannot be read, is no regular file, or has more than `limit` bytes."""
    # Opening a pipe would wait for somebody who writes into it.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(file))
        if found.st_size > limit:
            raise OSError(errno.EFBIG, f"has {found.st_size:,} bytes, more than {limit:,}", str(file))
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            return opened.read(found.st_size)
    finally:
        os.close(descriptor)


def is_file_of_some_kind(file: Path) -> bool:
    """Whether there is something other than a folder; a name that no file can have names nothing."""
    try:
        return not stat.S_ISDIR(file.stat().st_mode)
    except (OSError, ValueError):
        return False
