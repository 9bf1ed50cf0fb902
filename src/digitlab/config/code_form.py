"""Python source reduced to what it does: without comments, docstrings and formatting.

The digest of a file's form is the same on every version of Python. Must not know which files decide.
"""

import ast
import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from digitlab.text.files import write_atomically


def form_digest(source: bytes) -> str:
    """SHA-256 in hex; of the bytes themselves where they are no valid Python."""
    try:
        form = repr(_form(ast.parse(source))).encode()
    except (SyntaxError, ValueError):
        form = source
    return hashlib.sha256(form).hexdigest()


def form_digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """`form_digest` of each file, by its name.

    Kept in __pycache__, as Python keeps the files compiled: all that decide numbers take 0.3 s.
    """
    kept = _read()
    keys = {name: hashlib.sha256(source).hexdigest() for name, source in files.items()}
    known = {key: kept.get(key) or form_digest(files[name]) for name, key in keys.items()}
    if not known.keys() <= kept.keys():
        with contextlib.suppress(OSError):  # a package that is read-only: parsed each time
            _cache().parent.mkdir(exist_ok=True)
            write_atomically(_cache(), json.dumps(known))
    return {name: known[key] for name, key in keys.items()}


def _form(node: object) -> object:
    """A syntax tree as nested tuples, without empty fields: which of them exist differs by version."""
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some formats with an empty text
        return "JoinedStr", [_form(part) for part in node.values if getattr(part, "value", None) != ""]
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields)
        full = [(name, _form(value)) for name, value in fields if value is not None and value != []]
        return type(node).__name__, full
    if isinstance(node, list):
        return [_form(item) for item in node if not _is_text_alone(item)]
    return node


def _is_text_alone(node: object) -> bool:
    """A docstring, or text that stands where one could."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _read() -> dict[str, str]:
    try:
        kept = json.loads(_cache().read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _cache() -> Path:
    """Named by this file's own digest: other rules give other forms."""
    rules = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return Path(importlib.util.cache_from_source(__file__)).with_name(f"code_form.{rules}.json")
