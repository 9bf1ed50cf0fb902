"""When to stop and which epoch is best, by validation scores only: the test split has no say here."""

from collections.abc import Iterator, Sequence

from digitlab.config import EarlyStoppingConfig
from digitlab.training import EpochReport


def until_stale(reports: Iterator[EpochReport], stopping: EarlyStoppingConfig) -> Iterator[EpochReport]:
    """All reports, or those until `stopping.patience` epochs have brought no improvement."""
    best, stale = -float("inf"), 0
    for report in reports:
        yield report
        if stopping.patience:
            merit = _merit(report, stopping.metric)
            improved = merit > best + stopping.min_delta
            best, stale = (merit, 0) if improved else (best, stale + 1)
            if stale >= stopping.patience:
                return


def best_report(history: Sequence[EpochReport], metric: str) -> EpochReport:
    """The first epoch with the best validation metric."""
    return max(history, key=lambda report: (_merit(report, metric), -report.epoch))


def _merit(report: EpochReport, metric: str) -> float:
    """The metric with the sign that makes larger better."""
    assert report.validation is not None, "the schema refuses this without a validation split"
    return report.validation.accuracy if metric.endswith("accuracy") else -report.validation.loss
