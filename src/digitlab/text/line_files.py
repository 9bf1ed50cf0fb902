"""Files with one JSON object a line, of which any line may be damaged: the others are used.

What a crash has cut off at the end of a file was never written, and is no damage.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def whole_lines(file: Path) -> list[bytes]:
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []


def end_at_a_line(file: Path) -> None:
    """Drop what was cut off: a further line must not follow half of one."""
    content = file.read_bytes() if file.exists() else b""
    if not content.endswith(b"\n") and content:
        with file.open("r+b") as handle:
            handle.truncate(content.rfind(b"\n") + 1)


def parsed(line: bytes, is_valid: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """The object on a line; None: it is damaged."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and is_valid(value) else None
