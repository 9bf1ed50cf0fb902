"""The same command again and again, each time with another fault in it."""

import contextlib
import datetime
import itertools
import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pytest

from tests.support.cli import LEVEL

T = TypeVar("T")


def numbers(name: str, total: int, *, sample: int, part: int = 0, step: int = 1) -> Iterable[int]:
    """Which operation fails next: the first of this part, and every step; in CI the day's sample."""
    if LEVEL != "ci":
        return itertools.count(part + 1, step)
    today = datetime.date.today().isoformat()
    return sorted(random.Random(f"{today} {name}").sample(range(1, total + 1), min(sample, total)))


def of_the_day(cases: Iterable[T], count: int) -> list[T]:
    """All; in CI as many as are drawn by the date."""
    today = datetime.date.today().isoformat()
    return random.Random(today).sample([*cases], count) if LEVEL == "ci" else [*cases]


class Loop:
    """Counts for the report what was injected and what was lost; a loss ends nothing but itself."""

    def __init__(self, name: str, record_property: Callable[[str, object], None]) -> None:
        self._name, self._record = name, record_property
        self._injected = 0
        self._lost: list[str] = []

    @contextlib.contextmanager
    def survives(self, what: str) -> Iterator[None]:
        """In the body everything is checked that must hold after one fault."""
        self._injected += 1
        try:
            yield
        except (Exception, pytest.fail.Exception) as problem:
            self._lost.append(what + "".join(traceback.format_exception_only(problem)))
            print(f"{self._name}: lost: {self._lost[-1]}", flush=True)

    def end(self) -> None:
        self._record("fault", self._name)
        self._record("injected", self._injected)
        self._record("lost", len(self._lost))
        assert self._injected, "nothing was injected"
        assert not self._lost, "\n".join(self._lost)
