"""Where the trials of a sweep come from. Knows no executor; sweep/search.py is the other source."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from digitlab.results.trial_result import TrialResult
from digitlab.sweep.ending.stop_rule import StopRule
from digitlab.sweep.manifest import Trial


class Source(Protocol):
    """Chooses which trials start, and when. Called under a lock, from several threads."""

    @property
    def results(self) -> Sequence[TrialResult]:
        """Among them those of trials that were finished already when it was their turn."""

    def take(self) -> list[Trial]:
        """A trial to start now, or several to be trained side by side. Empty: there is none now, and
        may be one after the next trial has ended."""

    def after_epoch(self, number: int, epoch: int, metrics: dict[str, float]) -> str | None:
        """Note an epoch of a running trial. Returns a reason to give the trial up, or None."""

    def ended(self, result: TrialResult) -> None:
        """Note a trial that has ended for good."""


class Listed:
    """The trials of a grid, chunk by chunk."""

    results: Sequence[TrialResult] = ()  # finished trials were left out when it was made

    def __init__(self, chunks: Iterable[list[Trial]], stop_rule: StopRule | None = None) -> None:
        self._chunks, self._stop_rule = iter(chunks), stop_rule or StopRule()

    def take(self) -> list[Trial]:
        return [] if self._stop_rule.reason() else next(self._chunks, [])

    def after_epoch(self, number: int, epoch: int, metrics: dict[str, float]) -> str | None:
        return None

    def ended(self, result: TrialResult) -> None:
        """A grid learns only that it has reached what it is for."""
        self._stop_rule.note(result)
