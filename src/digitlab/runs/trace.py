"""The course of a training, in so few numbers that they can be recorded and compared to the bit.

Knows no runs and no files.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from digitlab.config.kinds import CLOSED, Integer
from digitlab.runs.artifacts import epoch_metrics
from digitlab.tracking.names import TRAIN_ACCURACY, TRAIN_LOSS, VALIDATION_ACCURACY, VALIDATION_LOSS
from digitlab.training.evaluation import Evaluation
from digitlab.training.loop import EpochReport


def _is_hex_float(text: str) -> str:
    try:
        float.fromhex(text)
    except OverflowError:
        raise ValueError("must be a hex float within the range of a double") from None
    return text


Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
HexFloat = Annotated[str, Field(max_length=40), AfterValidator(_is_hex_float)]
METRICS = (TRAIN_LOSS, TRAIN_ACCURACY, VALIDATION_LOSS, VALIDATION_ACCURACY)


@dataclass(config=CLOSED, frozen=True, slots=True, kw_only=True)
class Trace:
    """Digests are SHA-256 in hex; numbers are hex floats (C99), which lose no bit.

    initial_weights, weights: over names, shapes and values (see models/saved.py).
    orders: of the images, an entry for each epoch. step_losses: of the first steps of the training.
    epochs: the metrics of METRICS for each epoch. test: loss and accuracy, by the chosen weights.
    predictions: of the test images' predicted classes. The last four are empty before the end.
    """

    initial_weights: Digest
    orders: list[Digest]
    step_losses: list[HexFloat]
    epochs: list[dict[str, HexFloat]]
    weights: Digest = ""
    test: dict[str, HexFloat] = dataclasses.field(default_factory=dict)
    predictions: Digest = ""
    num_test_images: Integer = 0


def trace_of(
    initial_weights: str,
    history: Sequence[EpochReport],
    *,
    weights: str = "",
    evaluation: Evaluation | None = None,
) -> Trace:
    """The trace of a finished training, or with `history` alone of one that was cut short."""
    ended: dict[str, Any] = {}
    if evaluation:
        scores = evaluation.scores
        ended["test"] = {"loss": scores.loss.hex(), "accuracy": scores.accuracy.hex()}
        ended["predictions"] = predictions_digest(evaluation.predictions)
        ended["num_test_images"] = len(evaluation.predictions)
    return Trace(
        initial_weights=initial_weights,
        orders=[report.order for report in history],
        step_losses=[loss.hex() for report in history for loss in report.first_losses],
        epochs=[
            {name: value.hex() for name, value in epoch_metrics(report).items() if name in METRICS}
            for report in history
        ],
        weights=weights,
        **ended,
    )


def predictions_digest(predictions: Any) -> str:
    """predictions: (N,) integers from 0, in the order of the test images."""
    classes = np.asarray(predictions)
    kind = np.uint8 if classes.max(initial=0) < 256 else np.uint16
    return hashlib.sha256(classes.astype(kind).tobytes()).hexdigest()


def to_floats(numbers: Mapping[str, str]) -> dict[str, float]:
    return {name: float.fromhex(text) for name, text in numbers.items()}
