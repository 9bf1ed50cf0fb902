"""The files that a project of one's own begins with; they lie in new_project/, each with a suffix."""

import importlib.resources
import re
from importlib.resources.abc import Traversable
from pathlib import Path

from digitlab.errors import UsageError
from digitlab.text.terminal import printable

SUFFIX = ".template"
PLACEHOLDER = "PROJECT_NAME"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def write(name: str) -> Path:
    """Write a new project into the folder `name` and return that folder.

    Raises:
        UsageError: the folder is not empty or cannot be written, or the name is none for a folder.
    """
    folder = Path(name).absolute()
    files = _files()
    if not folder.exists() and not NAME.fullmatch(folder.name):
        raise UsageError(
            "the name of a project is made of at most 100 letters, digits, . _ and -, and begins with "
            f"a letter or digit, got {folder.name!r}"
        )
    if present := _in_the_way(folder, files):
        raise UsageError(
            f"{folder} is not empty (it has {present}): choose a new name, or an empty folder"
        )
    try:
        for path, text in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace(PLACEHOLDER, printable(folder.name)), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from None
    return folder


def _in_the_way(folder: Path, files: dict[str, str]) -> str | None:
    """What would be overwritten or stand beside the project; environments and git may be there."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{folder} is no folder to work in: {error.strerror}") from None
    written = {path.partition("/")[0] for path in files}
    visible = [n for n in names if n in written or not (n.startswith(".") or n == "venv")]
    return visible[0] if visible else None


def _files() -> dict[str, str]:
    """Texts by their paths in the project."""
    root = importlib.resources.files(__package__) / "new_project"
    return {path.removesuffix(SUFFIX): file.read_text("utf-8") for path, file in _walk(root, "")}


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            found.append((f"{prefix}{entry.name}", entry))
    return found
