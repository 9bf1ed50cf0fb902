"""When to stop and which epoch is best, by validation scores only: the test split has no say here."""

from collections.abc import Sequence

from digitlab.config.schema import EarlyStoppingConfig
from digitlab.training.loop import EpochReport


class Patience:
    """Whether a training has gone on for too long without getting better."""

    def __init__(self, stopping: EarlyStoppingConfig) -> None:
        self._stopping = stopping
        self._best, self._stale = -float("inf"), 0

    def is_over(self, report: EpochReport) -> bool:
        """After each report, in their order: whether it was the last."""
        if not self._stopping.patience:
            return False
        merit = _merit(report, self._stopping.metric)
        has_improved = merit > self._best + self._stopping.min_delta
        self._best, self._stale = (merit, 0) if has_improved else (self._best, self._stale + 1)
        return self._stale >= self._stopping.patience


def best_report(history: Sequence[EpochReport], metric: str) -> EpochReport:
    """The first epoch with the best validation metric."""
    return max(history, key=lambda report: (_merit(report, metric), -report.epoch))


def _merit(report: EpochReport, metric: str) -> float:
    """The metric with the sign that makes larger better."""
    assert report.validation is not None, "the schema refuses this without a validation split"
    return report.validation.accuracy if metric.endswith("accuracy") else -report.validation.loss
