"""When a sweep starts no further trial though some are left. What runs then goes on to its end."""

import dataclasses
import re
import time
from typing import Self

from digitlab.errors import UsageError
from digitlab.results.trial_result import TrialResult
from digitlab.sweep.ending.goal import Goal

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclasses.dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long trials may start: until `deadline` of the monotonic clock. text: as it was typed."""

    text: str
    deadline: float

    @classmethod
    def from_now(cls, text: str) -> Self:
        """Of `90s`, `10m`, `1.5h` or `2d`. Raises UsageError."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text.strip())
        if match is None or not float(match[1]):
            raise UsageError(
                f"--for takes a number of s, m, h or d (`90s`, `10m`, `1.5h`), got {text!r}"
            )
        return cls(text.strip(), time.monotonic() + float(match[1]) * SECONDS[match[2]])

    def is_over(self) -> bool:
        return time.monotonic() >= self.deadline


class StopRule:
    """Asked before each trial starts. Without a limit and a goal it never stops a sweep."""

    def __init__(self, limit: TimeLimit | None = None, goal: Goal | None = None) -> None:
        self._limit, self._goal = limit, goal
        self._is_told = False

    @property
    def may_stop(self) -> bool:
        """Whether there is anything that could stop the sweep: then no trial is submitted ahead."""
        return self._limit is not None or (self._goal is not None and self._goal.is_set)

    @property
    def is_reached(self) -> bool:
        """Whether the sweep has what it is for: the trials that are left will not be needed."""
        return self._goal is not None and bool(self._goal.trials)

    def note(self, result: TrialResult) -> None:
        """Note a trial that has ended; a further time changes nothing."""
        if self._goal:
            self._goal.note(result)

    def reason(self) -> str | None:
        """Why no further trial starts; None as long as one may."""
        if self._goal and self._goal.trials:
            return self._goal.sentence()
        if self._limit and self._limit.is_over():
            return f"the time of --for {self._limit.text} is over"
        return None

    def shortfall(self) -> str:
        """That the sweep has not reached what it was for; empty if it was for nothing in particular."""
        return f"{self._goal.sentence()}." if self._goal and self._goal.is_set else ""

    def news(self) -> str | None:
        """The reason, the first time that there is one."""
        if self._is_told or not (reason := self.reason()):
            return None
        self._is_told = True
        return reason
