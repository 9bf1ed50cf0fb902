"""What a model answered to each test image, as a run keeps it. Knows neither torch nor the store."""

import dataclasses
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

PREDICTIONS_FILE = "predictions.parquet"

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


def read_answers(file: Path | BinaryIO) -> Answers:
    """From a run's predictions.parquet."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file, columns=["label", "prediction", "loss"])
    return Answers(*(table[name].to_numpy() for name in ("label", "prediction", "loss")))
