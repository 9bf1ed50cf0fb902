"""One override as it was typed: Hydra's own values, and sentences instead of a parser's jargon."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from digitlab.config.overrides import Parser, quoted, value_of
from digitlab.errors import ConfigError


def value(text: str) -> Any:
    return value_of(Parser().parse(text))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (r"study=foo\,bar", "foo,bar"),
        (r"study='it\'s mine'", "it's mine"),
        (r'study="say \"hi\""', 'say "hi"'),
        (r"data.root=/data/a\,b", "/data/a,b"),
        (r"study='a\b'", r"a\b"),
        ("study='a, b'", "a, b"),
        ("study='null'", "null"),
    ],
)
def test_text_is_what_hydra_reads(text: str, meant: str) -> None:
    assert value(text) == OverridesParser.create().parse_override(text).value() == meant


@pytest.mark.parametrize("typed", ["007", "1e3", "2024_01", "true", "1.50", "größe", "a (b) = [c] #1"])
def test_text_that_hydra_would_read_as_something_else_or_not_at_all_is_as_typed(typed: str) -> None:
    assert value(f"study={typed}") == value(f"sweep.name={typed}") == typed
    assert value("study=null") is None


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_quoted_text_is_read_as_itself(text: str) -> None:
    assert value(f"study={quoted(text)}") == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model=cnn,", "a value is missing beside the comma"),
        ("model=,cnn", "a value is missing beside the comma"),
        ("seed=1,,2", "a value is missing beside the comma"),
        ("seed=range(3", "a bracket has no partner"),
        ("study=it's", "no partner; if its value is one text, quote it twice: \"study='it\\'s'\""),
        ("größe=3", "'größe' is no name of a knob"),
        ("=3", "'' is no name of a knob"),
        ("study=ä,b", "if its value is one text, quote it twice: \"study='ä,b'\""),
        ("epochs", "write knob=value, such as epochs=20"),
    ],
)
def test_what_cannot_be_read_says_why_without_jargon(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Parser().parse(text)
    (problem,) = caught.value.problems
    assert problem.endswith(told)
    assert not any(word in problem for word in ("expecting", "EOF", "Lexer", "input", "Error"))
