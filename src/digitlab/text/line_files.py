"""A file with one JSON object a line, of which any line may be damaged: the others are used.

Must not know what a line tells.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from digitlab.text.files import write_atomically


class Journal:
    """Lines that survive a kill. What a crash cut off at the end was never written: that is no damage.

    is_valid: whether an object has what its readers rely on; a line without it is damaged.
    """

    def __init__(self, file: Path, is_valid: Callable[[dict[str, Any]], bool]) -> None:
        self._file, self._is_valid = file, is_valid
        self._ends_at_a_line = False  # as far as this process knows

    def append(self, *lines: Mapping[str, Any]) -> None:
        """Write lines, at once. For the process that owns the file."""
        if not self._ends_at_a_line:
            self._drop_what_was_cut_off()
        self._ends_at_a_line = False
        with self._file.open("ab") as file:
            file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self._ends_at_a_line = True

    def lines(self) -> list[dict[str, Any] | None]:
        """None in the place of a damaged one."""
        return [self._parsed(line) for line in self._whole_lines()]

    def lines_since(self, start: int) -> tuple[list[dict[str, Any] | None], int]:
        """The same from this byte on, and the byte to go on from."""
        try:
            with self._file.open("rb") as file:
                file.seek(start)
                *whole, rest = file.read().split(b"\n")
                return [self._parsed(line) for line in whole], file.tell() - len(rest)
        except FileNotFoundError:
            return [], start

    def num_damaged(self) -> int:
        return self.lines().count(None)

    def set_damaged_aside(self) -> int:
        """Move damaged lines to a file of their own; returns how many. For the owner."""
        lines = self._whole_lines()
        damaged = [line for line in lines if self._parsed(line) is None]
        if damaged:
            with self._file.with_name(f"{self._file.name}.damaged").open("ab") as file:
                file.writelines(line + b"\n" for line in damaged)
            whole = (line + b"\n" for line in lines if line not in damaged)
            write_atomically(self._file, b"".join(whole))
        return len(damaged)

    def _whole_lines(self) -> list[bytes]:
        return self._file.read_bytes().split(b"\n")[:-1] if self._file.exists() else []

    def _drop_what_was_cut_off(self) -> None:
        """A further line must not follow half of one."""
        content = self._file.read_bytes() if self._file.exists() else b""
        if not content.endswith(b"\n") and content:
            with self._file.open("r+b") as handle:
                handle.truncate(content.rfind(b"\n") + 1)

    def _parsed(self, line: bytes) -> dict[str, Any] | None:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) and self._is_valid(value) else None
