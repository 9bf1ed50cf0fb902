"""Versions of a file: one chain brings each to the latest, and a later one is refused as such."""

from typing import Any

import pytest

from digitlab.text.formats import Format, LaterFormat, Values


def to_2(values: Values) -> Values:
    """The rate has its whole name."""
    rest = {key: value for key, value in values.items() if key != "rate"}
    return {**rest, "learning_rate": values["rate"]}


def to_3(values: Values) -> Values:
    """Seconds, which were milliseconds."""
    return values | {"seconds": values["seconds"] / 1000}


TABLE = Format(upgrades={1: to_2, 2: to_3}, unnumbered=1)
FIRST = {"rate": 0.1, "seconds": 2000}
LATEST = {"format": 3, "learning_rate": 0.1, "seconds": 2.0}


@pytest.mark.parametrize(
    "values",
    [FIRST, {"format": 1, **FIRST}, {"format": 2, "learning_rate": 0.1, "seconds": 2000}, LATEST],
)
def test_every_version_is_brought_to_the_latest(values: Values) -> None:
    before = dict(values)
    assert TABLE.upgraded(values) == LATEST
    assert values == before
    assert TABLE.numbered({"learning_rate": 0.1, "seconds": 2.0}) == LATEST


def test_a_later_version_says_so_and_what_to_do() -> None:
    with pytest.raises(LaterFormat, match=r"format must be 1 to 3, got 4: .* later .*upgrade digitlab"):
        TABLE.upgraded({"format": 4})


@pytest.mark.parametrize("version", [0, -1, 1.0, True, "1", None, [1]])
def test_what_is_no_version_is_refused(version: Any) -> None:
    with pytest.raises(ValueError, match="format must be 1 to 3, got "):
        TABLE.upgraded({"format": version})


def test_only_a_format_that_began_without_numbers_takes_what_has_none() -> None:
    with pytest.raises(ValueError, match="format must be 1, got None"):
        Format().upgraded({})
    assert Format(unnumbered=1).upgraded({}) == {"format": 1}


@pytest.mark.parametrize("damaged", [None, [], "x", {"format": 1}, {"format": 2, "seconds": "x"}])
def test_what_is_damaged_is_refused_on_the_way(damaged: Any) -> None:
    with pytest.raises(ValueError, match=r"it holds no object|it is not of format [12], as it says"):
        TABLE.upgraded(damaged)
