"""How good predictions are: loss, accuracy, per-class scores, calibration, confusion matrix."""

import dataclasses

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional

from digitlab.data.splits import Split
from digitlab.models.predict import predict

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """loss: mean cross-entropy in nats. accuracy: share of right answers, in [0, 1]."""

    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True, slots=True)
class ClassScores:
    """Of one class: precision, recall and F1 in [0, 1] (0 where undefined); support in images."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """What one set of weights makes of one split.

    probabilities: (N, C), rows sum to 1. labels, predictions: (N,). losses: (N,) in nats.
    confusion: (C, C), row = true class, column = predicted. calibration_error: in [0, 1].
    """

    scores: Scores
    per_class: list[ClassScores]
    calibration_error: float
    confusion: Integers
    probabilities: npt.NDArray[np.float32]
    losses: Floats
    labels: Integers
    predictions: Integers


def score(model: nn.Module, split: Split) -> Scores:
    """Loss and accuracy only: what each epoch's validation needs."""
    return score_logits(predict(model, split), split.labels.cpu())


def score_logits(logits: Tensor, labels: Tensor) -> Scores:
    """Of logits (N, C) and labels (N,), both on the CPU."""
    return Scores(
        loss=functional.cross_entropy(logits.double(), labels).item(),
        accuracy=(logits.argmax(1) == labels).double().mean().item(),
    )


def evaluate(model: nn.Module, split: Split) -> Evaluation:
    logits, labels = predict(model, split), split.labels.cpu()
    losses = functional.cross_entropy(logits.double(), labels, reduction="none").numpy()
    probabilities = logits.softmax(1).numpy()
    predictions = logits.argmax(1).numpy()
    truth = labels.numpy()
    confusion = confusion_matrix(truth, predictions, num_classes=logits.shape[1])
    return Evaluation(
        scores=Scores(float(losses.mean()), float((predictions == truth).mean())),
        per_class=class_scores(confusion),
        calibration_error=expected_calibration_error(probabilities, truth),
        confusion=confusion,
        probabilities=probabilities,
        losses=losses,
        labels=truth,
        predictions=predictions,
    )


def confusion_matrix(labels: Integers, predictions: Integers, *, num_classes: int) -> Integers:
    """(C, C) counts: row = true class, column = predicted class."""
    cells = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def class_scores(confusion: Integers) -> list[ClassScores]:
    right = confusion.diagonal()
    predicted, support = confusion.sum(0), confusion.sum(1)
    return [
        ClassScores(
            precision=_ratio(right[c], predicted[c]),
            recall=_ratio(right[c], support[c]),
            f1=_ratio(2 * right[c], predicted[c] + support[c]),
            support=int(support[c]),
        )
        for c in range(len(confusion))
    ]


def expected_calibration_error(
    probabilities: npt.NDArray[np.float32], labels: Integers, num_bins: int = 15
) -> float:
    """Mean distance of confidence and accuracy over equal-width bins, weighted by their images.

    Naeini et al. 2015, Guo et al. 2017 (equation 3). In [0, 1]; 0 is perfectly calibrated.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = (probabilities.argmax(1) == labels).astype(np.float64)
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
