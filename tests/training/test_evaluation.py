"""Scores against scikit-learn and plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torch import nn

from digitlab.data.splits import Split
from digitlab.models import predict
from digitlab.training import evaluation


def random_split(size: int, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 28, 28), generator=generator, dtype=torch.uint8)
    return Split(images, torch.randint(0, 10, (size,), generator=generator), mean=0.1, std=0.3)


def random_model(seed: int = 0) -> nn.Module:
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10))


def test_all_scores_are_scikit_learns() -> None:
    split = random_split(2345)
    result = evaluation.evaluate(predict.predict(random_model(), split), split.labels)
    labels, predictions = result.labels, result.predictions
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predictions, zero_division=0
    )
    assert [s.precision for s in result.per_class] == pytest.approx(precision.tolist())
    assert [s.recall for s in result.per_class] == pytest.approx(recall.tolist())
    assert [s.f1 for s in result.per_class] == pytest.approx(f1.tolist())
    assert [s.support for s in result.per_class] == support.tolist()
    assert result.scores.accuracy == pytest.approx(metrics.accuracy_score(labels, predictions))
    assert result.scores.loss == pytest.approx(metrics.log_loss(labels, result.probabilities), rel=1e-5)
    assert (result.confusion == metrics.confusion_matrix(labels, predictions)).all()


def test_score_equals_a_plain_loop_with_a_partial_last_batch() -> None:
    model, split = random_model(), random_split(predict.LARGEST_BATCH + 37)
    model.eval()
    losses, right = [], 0
    for image, label in zip(split.images, split.labels, strict=True):
        logits = model(((image / 255 - 0.1) / 0.3).view(1, 1, 28, 28))
        losses.append(nn.functional.cross_entropy(logits, label.view(1)).item())
        right += int(logits.argmax()) == int(label)
    scores = evaluation.score(model, split)
    assert scores.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert scores.accuracy == right / len(split)


@pytest.mark.parametrize(("shape", "num_classes"), [((8, 8), 2), ((3, 32, 48), 17), ((3, 9, 9), 1000)])
def test_images_of_any_shape_and_any_number_of_classes_are_scored(
    shape: tuple[int, ...], num_classes: int
) -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (300, *shape), generator=draw, dtype=torch.uint8)
    split = Split(images, torch.randint(num_classes, (300,), generator=draw), mean=0.1, std=0.3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(split.images[0].numel(), num_classes))
    result = evaluation.evaluate(predict.predict(model, split), split.labels)
    labels, every = result.labels, range(num_classes)
    expected = metrics.confusion_matrix(labels, result.predictions, labels=every)
    assert (result.confusion == expected).all()
    f1 = metrics.f1_score(labels, result.predictions, labels=every, average="macro", zero_division=0.0)
    assert sum(s.f1 for s in result.per_class) / num_classes == pytest.approx(f1)


@pytest.mark.parametrize("shape", [(28, 28), (3, 32, 32), (3, 256, 256)])
def test_large_images_are_predicted_few_at_once(shape: tuple[int, ...]) -> None:
    """By the first convolution's ten channels of 4 bytes: never more than 160 MB."""
    split = Split(torch.zeros((1, *shape), dtype=torch.uint8), torch.zeros(1), mean=0.0, std=1.0)
    size = predict.batch_size(split)
    assert size * 10 * 4 * shape[-1] * shape[-2] < 160e6
    assert size == {28: 1000, 32: 1000, 256: 20}[shape[-1]]


def test_predicting_draws_no_random_number_and_leaves_the_mode() -> None:
    model = random_model().train()
    before = torch.get_rng_state()
    predict.predict(model, random_split(50))
    assert torch.equal(before, torch.get_rng_state())
    assert model.training


@given(st.integers(0, 10_000), st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_calibration_error_equals_a_plain_loop_over_bins(seed: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(10, 0.3), size).astype(np.float32)
    labels = generator.integers(0, 10, size)
    confidence = probabilities.max(1).astype(float)
    right = probabilities.argmax(1) == labels
    expected = 0.0
    for low in range(15):
        inside = (np.minimum(np.floor(confidence * 15), 14)) == low
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = evaluation.expected_calibration_error(probabilities, labels)
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_class_never_predicted_and_never_seen_scores_zero() -> None:
    scores = evaluation.class_scores(
        evaluation.confusion_matrix(np.array([1, 1]), np.array([2, 1]), num_classes=10)
    )
    assert (scores[0].precision, scores[0].recall, scores[0].f1, scores[0].support) == (0, 0, 0, 0)
    assert (scores[1].precision, scores[1].recall) == (1.0, 0.5)
