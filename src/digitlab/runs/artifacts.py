"""The files that a run leaves: to look at, to compare, to load again."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from digitlab.data.splits import Dataset
from digitlab.models.saved import WEIGHTS_FILE, save_weights
from digitlab.runs.answers import PREDICTIONS_FILE, Answers
from digitlab.training.evaluation import Evaluation
from digitlab.training.loop import EpochReport


def save_artifacts(
    folder: Path,
    model: nn.Module,
    dataset: Dataset,
    history: Sequence[EpochReport],
    evaluation: Evaluation,
) -> None:
    """Weights and tables."""
    save_weights(model.state_dict(), folder / WEIGHTS_FILE)
    _write_history(history, folder / "metrics.csv")
    _write_per_class(dataset, evaluation, folder / "per_class.csv")
    _write_predictions(evaluation, folder / PREDICTIONS_FILE)


def draw_artifacts(
    folder: Path, dataset: Dataset, history: Sequence[EpochReport], evaluation: Evaluation
) -> None:
    """Pictures, at the root, where MLflow compares them."""
    from digitlab.runs import plots

    plots.draw_pictures(
        folder,
        epochs=_rows(history),
        answers=Answers(evaluation.labels, evaluation.predictions, evaluation.losses),
        images=dataset.test.images.cpu().numpy(),
        class_names=dataset.class_names,
    )


def epoch_metrics(report: EpochReport) -> dict[str, float]:
    """An epoch's metrics under the names that they are recorded by."""
    metrics = {"train/loss": report.train.loss, "train/accuracy": report.train.accuracy}
    if report.validation:
        metrics["validation/loss"] = report.validation.loss
        metrics["validation/accuracy"] = report.validation.accuracy
    metrics["train/learning_rate"] = report.learning_rate
    metrics["time/epoch_seconds"] = report.seconds
    metrics["time/images_per_second"] = report.images_per_second
    return metrics


def _write_history(history: Sequence[EpochReport], file: Path) -> None:
    with file.open("w", newline="") as handle:
        rows = _rows(history)
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _rows(history: Sequence[EpochReport]) -> list[dict[str, float]]:
    return [{"epoch": report.epoch, **epoch_metrics(report)} for report in history]


def _write_per_class(dataset: Dataset, evaluation: Evaluation, file: Path) -> None:
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["class", "precision", "recall", "f1", "support"])
        for name, scores in zip(dataset.class_names, evaluation.per_class, strict=True):
            writer.writerow([name, *dataclasses.astuple(scores)])


def _write_predictions(evaluation: Evaluation, file: Path) -> None:
    """One row per test image, in the data set's order, with every probability as float32."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = {
        "label": evaluation.labels,
        "prediction": evaluation.predictions,
        "loss": evaluation.losses,
    }
    columns |= {f"p{c}": evaluation.probabilities[:, c] for c in range(len(evaluation.per_class))}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
