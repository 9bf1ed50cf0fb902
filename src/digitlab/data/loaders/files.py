"""Files that a user names: what is there, and whether it is what a loader reads. Opens none."""

import stat
from pathlib import Path

from digitlab.errors import DataError, reason


def check_regular(path: Path) -> None:
    """Raises DataError where there is none, or a folder, a pipe or a device."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        said = reason(error) if isinstance(error, OSError) else str(error)
        raise DataError(f"{path}: {said}; data.path=PATH names another") from None
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: is a folder, expected a file; data.path=PATH names one")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: is no regular file; data.path=PATH names another")


def check_folder(path: Path) -> None:
    """Raises DataError where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        said = reason(error) if isinstance(error, OSError) else str(error)
        raise DataError(f"{path}: {said}; data.path=PATH names another") from None
    if not stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: is no folder; data.path=PATH names one")
