"""What a model answered to each test image, as a run keeps it. Knows neither torch nor the store."""

import dataclasses
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from digitlab.errors import DataError

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
    """From a run's predictions.parquet. Raises DataError if it is damaged."""
    import pyarrow
    import pyarrow.parquet

    kinds = {"label": pyarrow.int64(), "prediction": pyarrow.int64(), "loss": pyarrow.float64()}
    try:
        table = pyarrow.parquet.read_table(file, columns=[*kinds])
        return Answers(*(table[name].cast(kind).to_numpy() for name, kind in kinds.items()))
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise DataError(f"{PREDICTIONS_FILE} is damaged: {str(error).splitlines()[0]}") from None
