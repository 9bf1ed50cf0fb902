"""The source of a component: its file, and what this imports from beside it. Read, never executed."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from digitlab.config.code_form import form_digest
from digitlab.text.files import read_file

MAX_BYTES = 4_000_000  # of a file


def files_of(modules: Sequence[Path], root: Path) -> dict[str, bytes]:
    """Modules' files and, directly or not, every file under `root` that they import, by their paths
    from there; what is imported by a name that is put together at run time is not among them."""
    found: dict[Path, bytes] = {}
    left = [*modules]
    while left:
        file = left.pop()
        if file in found or not file.is_relative_to(root):
            continue
        found[file] = read_file(file, MAX_BYTES)
        left += _imported(found[file], file, root)
    return {file.relative_to(root).as_posix(): found[file] for file in sorted(found)}


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """The start of the SHA-256 of each file's bytes, as a record names them."""
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in files.items()}


def forms(files: Mapping[str, bytes]) -> dict[str, str]:
    """What each file does: comments and formatting change nothing."""
    return {name: form_digest(content) for name, content in files.items()}


def module_file(name: str) -> tuple[Path, Path] | None:
    """The file of an installed module and the folder that its package lies in; imports nothing."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        return (Path(spec.origin), Path(spec.origin).parent) if spec.origin and not rest else None
    for folder in map(Path, spec.submodule_search_locations):
        if (file := _in_folder(folder.joinpath(*rest))) is not None:
            return file, folder.parent
    return None


def _imported(source: bytes, file: Path, root: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f for alias in node.names for f in _along(root, alias.name.split(".")))
        elif isinstance(node, ast.ImportFrom):
            start = file.parents[node.level - 1] if 0 < node.level <= len(file.parents) else root
            path = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _along(start, [*path, alias.name])


def _along(folder: Path, names: list[str]) -> Iterator[Path]:
    """Every file that importing `a.b.c` executes, if it lies here."""
    if folder.joinpath("__init__.py").is_file() and names:
        yield folder / "__init__.py"
    for end in range(1, len(names) + 1):
        if (file := _in_folder(folder.joinpath(*names[:end]))) is not None:
            yield file


def _in_folder(stem: Path) -> Path | None:
    candidates = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
    return next((file for file in candidates if file.is_file()), None)
