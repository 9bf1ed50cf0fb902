"""Data that took long to read, kept as decoded: 60,000 pictures are opened once, not in every process.

What is kept is known by the path, the knobs, the code that reads, and the names, sizes and times of all
files; its own digests are compared on every load, and what is damaged is read anew.
"""

import contextlib
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import platformdirs

from digitlab.config.fingerprint import code_digest
from digitlab.data.digests import digests_of
from digitlab.data.image_data import ImageData

SLOW_SECONDS = 1.0  # what is read faster is not kept
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_latest: dict[str, ImageData] = {}  # of this process, by key: one at the most


def kept(path: Path, knobs: Mapping[str, Any], read: Callable[[], ImageData]) -> ImageData:
    """What `read` gives of `path` under these knobs, from here if nothing has changed."""
    prefix = _sha256([str(path.absolute()), dict(knobs)])
    key = _sha256([code_digest(), PIL.__version__, np.__version__, *_files(path)])
    if (known := _latest.get(prefix + key)) is not None:
        return known
    file = folder() / f"{prefix}-{key}.npz"
    data = _load(file)
    if data is None:
        started = time.monotonic()
        data = read()
        if time.monotonic() - started > SLOW_SECONDS:
            _save(file, data)
            _forget_others(file, prefix)
    _latest.clear()
    _latest[prefix + key] = data
    return data


def folder() -> Path:
    return Path(platformdirs.user_cache_dir("digitlab")) / "data"


def _files(path: Path, *, follow: bool = True) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of what a loader may read: a folder's files, or those that begin so.

    follow: also links to folders, as a class's may be one; not those in there, which may lead back.
    """
    if path.is_dir():
        for inner, folders, names in os.walk(path, followlinks=False):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                yield _of_file(Path(inner, name), path)
            for name in folders:
                if follow and (link := Path(inner, name)).is_symlink():
                    yield from _files(link.resolve(), follow=False)
        return
    for file in sorted(path.parent.glob(f"{escape(path.name)}*")):
        yield _of_file(file, path.parent)


def _of_file(file: Path, root: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:
        return (str(file.relative_to(root)), -1, -1)
    return (str(file.relative_to(root)), status.st_size, status.st_mtime_ns)


def _load(file: Path) -> ImageData | None:
    try:
        with np.load(file, allow_pickle=False) as kept_arrays:
            arrays = {name: kept_arrays[name] for name in ARRAYS}
            about = json.loads(kept_arrays["about"].tobytes())
        data = ImageData(
            (arrays["train_images"], arrays["train_labels"]),
            (arrays["test_images"], arrays["test_labels"]),
            about["class_names"],
            tuple(about["origins"]) if about["origins"] else None,
            tuple(about["notes"]),
        )
        return data if digests_of(data) == about["digests"] else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _save(file: Path, data: ImageData) -> None:
    """As well as it goes: without room for it the next load reads again."""
    about = {
        "class_names": data.class_names,
        "origins": [list(each) for each in data.origins] if data.origins else None,
        "notes": data.notes,
        "digests": digests_of(data),
    }
    arrays: dict[str, Any] = dict(zip(ARRAYS, (*data.train, *data.test), strict=True))
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as opened:
            np.savez(opened, **arrays)
        temporary.replace(file)
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _forget_others(file: Path, prefix: str) -> None:
    """What was kept of the same path under the same knobs, before its files changed."""
    for other in file.parent.glob(f"{prefix}-*.npz"):
        if other != file:
            with contextlib.suppress(OSError):
                other.unlink()


def _sha256(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
