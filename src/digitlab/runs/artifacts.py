"""The tables that a run leaves, written and read. Knows neither torch nor the store."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from digitlab.errors import DataError
from digitlab.tracking import names

if TYPE_CHECKING:
    from digitlab.data.splits import Dataset
    from digitlab.training.evaluation import Evaluation
    from digitlab.training.loop import EpochReport


Integers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """Of the test images, all (N,): true and predicted classes, and the loss of each in nats."""

    labels: Integers
    predictions: Integers
    losses: npt.NDArray[np.float64]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(N,): whether the prediction is the label."""
        return np.equal(self.predictions, self.labels)


def save_tables(
    folder: Path, dataset: "Dataset", history: "Sequence[EpochReport]", evaluation: "Evaluation"
) -> None:
    _write_history(history, folder / names.EPOCHS_FILE)
    _write_per_class(dataset, evaluation, folder / names.PER_CLASS_FILE)
    _write_predictions(evaluation, folder / names.PREDICTIONS_FILE)


def read_answers(content: bytes) -> Answers:
    """From a run's predictions.parquet. Raises DataError if it is damaged."""
    import pyarrow
    import pyarrow.parquet

    kinds = {"label": pyarrow.int64(), "prediction": pyarrow.int64(), "loss": pyarrow.float64()}
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content), columns=[*kinds])
        return Answers(*(table[name].cast(kind).to_numpy() for name, kind in kinds.items()))
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise DataError(f"{names.PREDICTIONS_FILE} is damaged: {str(error).splitlines()[0]}") from None


def epoch_metrics(report: "EpochReport") -> dict[str, float]:
    """An epoch's metrics under the names that they are recorded by."""
    metrics = {names.TRAIN_LOSS: report.train.loss, names.TRAIN_ACCURACY: report.train.accuracy}
    if report.validation:
        metrics[names.VALIDATION_LOSS] = report.validation.loss
        metrics[names.VALIDATION_ACCURACY] = report.validation.accuracy
    metrics[names.LEARNING_RATE] = report.learning_rate
    metrics[names.EPOCH_SECONDS] = report.seconds
    metrics[names.IMAGES_PER_SECOND] = report.images_per_second
    return metrics


def _write_history(history: "Sequence[EpochReport]", file: Path) -> None:
    with file.open("w", newline="") as handle:
        rows = epoch_rows(history)
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def epoch_rows(history: "Sequence[EpochReport]") -> list[dict[str, float]]:
    return [{"epoch": report.epoch, **epoch_metrics(report)} for report in history]


def _write_per_class(dataset: "Dataset", evaluation: "Evaluation", file: Path) -> None:
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["class", "precision", "recall", "f1", "support"])
        for name, scores in zip(dataset.class_names, evaluation.per_class, strict=True):
            writer.writerow([name, *dataclasses.astuple(scores)])


def _write_predictions(evaluation: "Evaluation", file: Path) -> None:
    """One row per test image, in the data set's order, with every probability as float32."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = {
        "label": evaluation.labels,
        "prediction": evaluation.predictions,
        "loss": evaluation.losses,
    }
    columns |= {f"p{c}": evaluation.probabilities[:, c] for c in range(len(evaluation.per_class))}
    table = pyarrow.table({name: _column(values) for name, values in columns.items()})
    # Nearly every probability is another number: a dictionary of them makes the file larger, and takes
    # five times as long.
    pyarrow.parquet.write_table(table, file, use_dictionary=["label", "prediction"])


def _column(values: npt.NDArray[Any]) -> Any:
    """What `pyarrow.array` returns, which imports pandas first: 0.3 s."""
    import pyarrow

    values = np.ascontiguousarray(values)
    kind = pyarrow.from_numpy_dtype(values.dtype)
    return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(values)])
