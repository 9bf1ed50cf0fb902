"""What a fingerprint covers: what the code does that decides numbers, not how it is written."""

from pathlib import Path

import pytest

from digitlab.config import code_form
from digitlab.config.code_form import form_digest, form_digests

WRITTEN = b'''"""A text."""
from math import pi

@property
def area(radius: float, *, unit: str = "m") -> str:
    """Of a circle."""
    return f"{pi * radius ** 2:>{len(unit)}}{unit!r}"  # with its unit
'''
REWRITTEN = b"""
from math import (
    pi,
)


@property
def area(
    radius: float,
    *,
    unit: str = 'm',
) -> str:
    # No text, and other lines.
    return f'{(pi * radius**2):>{len(unit)}}{unit!r}'
"""


def test_comments_docstrings_and_formatting_are_not_the_code() -> None:
    assert form_digest(WRITTEN) == form_digest(REWRITTEN)


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"** 2", b"** 3"), (b'"m"', b'"km"'), (b"@property\n", b""), (b"!r", b""), (b":>", b":<")],
)
def test_every_change_of_what_is_computed_is_another_code(before: bytes, after: bytes) -> None:
    assert before in WRITTEN
    assert form_digest(WRITTEN.replace(before, after)) != form_digest(WRITTEN)


def test_the_form_is_the_same_on_every_python() -> None:
    """As written by 3.11; 3.12 gives functions another field, and ends a format with an empty text."""
    recorded = "41a2da54ad3acadcc6cee0c91e5d0d6ad7720cdaaafc3e538514222a5b4024f5"
    assert form_digest(WRITTEN) == recorded


def test_a_file_that_is_no_python_is_told_apart_by_its_bytes() -> None:
    assert form_digest(b"def f(:  # once") != form_digest(b"def f(:  # twice")


def test_forms_are_kept_and_a_cache_that_is_damaged_or_forbidden_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "__pycache__" / "forms.json"
    monkeypatch.setattr(code_form, "_cache", lambda: cache)
    files = {"loop.py": WRITTEN, "model.py": REWRITTEN + b"more = 1\n"}
    expected = {name: form_digest(source) for name, source in files.items()}
    assert form_digests(files) == expected
    with monkeypatch.context() as unparsed:
        unparsed.setattr(code_form, "form_digest", lambda source: "parsed again")
        assert form_digests(files) == expected
        assert form_digests({"loop.py": b"x = 1"}) == {"loop.py": "parsed again"}
    cache.write_text("[half")
    assert form_digests(files) == expected
    cache.unlink()
    cache.mkdir()
    assert form_digests(files) == expected
