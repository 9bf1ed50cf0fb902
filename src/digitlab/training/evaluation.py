"""How good predictions are: loss, accuracy, per-class scores, calibration, confusion matrix."""

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
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


def evaluate(logits: Tensor, labels: Tensor) -> Evaluation:
    """Of logits (N, C) and labels (N,), both on the CPU."""
    losses = functional.cross_entropy(logits.double(), labels, reduction="none").numpy()
    by_class = logits.t().contiguous().softmax(0)  # over rows of ten it takes torch ten times as long
    probabilities = by_class.t().contiguous().numpy()
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
    largest, chosen = torch.from_numpy(probabilities).max(1)  # three times as fast as numpy's
    confidence = largest.double().numpy()
    right = (chosen.numpy() == labels).astype(np.float64)
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
