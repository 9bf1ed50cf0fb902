"""What a sweep is to reach (`sweep.target`), and whether it has.

Judged like the ranking: by the validation metric of the chosen weights, its mean over a point's seeds.
"""

import statistics
from collections import Counter, defaultdict

from digitlab.config.kinds import Metric
from digitlab.results.summary import value_of
from digitlab.results.trial_result import TrialResult
from digitlab.sweep.manifest import Manifest
from digitlab.sweep.settings import is_maximised


class Goal:
    """Without a target it is never reached. trials: those that have reached it first, of one point."""

    def __init__(self, manifest: Manifest) -> None:
        settings = manifest.settings.sweep
        self._target, self._metric = settings.target, settings.metric
        self._repeats = settings.repeats  # of a search; a grid may repeat its points by `seed=0,1`, too
        self._sizes = Counter(trial.point for trial in manifest.trials)
        self._points: dict[int, dict[int, float | None]] = defaultdict(dict)
        self.trials: tuple[int, ...] = ()
        self._mean = 0.0

    @property
    def is_set(self) -> bool:
        return self._target is not None

    def note(self, result: TrialResult) -> None:
        """Note a trial that has ended; a further time changes nothing."""
        if self._target is None or self.trials:
            return
        values = self._points[result.point]
        values[result.number] = value_of(result, self._metric)
        finite = [value for value in values.values() if value is not None]
        if len(finite) < (self._sizes[result.point] or self._repeats):
            return
        self._mean = statistics.fmean(finite)
        if self._mean >= self._target if is_maximised(self._metric) else self._mean <= self._target:
            self.trials = tuple(sorted(values))

    def sentence(self) -> str:
        """`sweep.target=0.95 was reached by trial 7 (validation/accuracy 0.9611)`, or was not."""
        if not self.trials:
            return f"sweep.target={self._target} was not reached"
        *others, last = map(str, self.trials)
        which = f"trials {', '.join(others)} and {last}" if others else f"trial {last}"
        value = f"{'mean ' if others else ''}{self._metric} {self._mean:.4f}"
        return f"sweep.target={self._target} was reached by {which} ({value})"


def wanted(metric: Metric, target: float) -> str:
    """`validation/accuracy of at least 0.95`."""
    return f"{metric} of {'at least' if is_maximised(metric) else 'at most'} {target}"
