"""The loop: exact steps, exact repetition, and what ends it."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from digitlab.config.schema import Config
from digitlab.data.splits import Split, load
from digitlab.errors import Diverged
from digitlab.models.build import build_model
from digitlab.models.predict import predict
from digitlab.randomness import derive_seed
from digitlab.training.evaluation import evaluate
from digitlab.training.loop import EpochReport, fit, num_steps
from digitlab.training.optimizers import build_optimizer
from digitlab.training.schedules import build_schedule


def train(
    config: Config, *, validate: bool = True, evaluate_often: bool = False
) -> tuple[str, list[EpochReport]]:
    """SHA-256 of the trained weights, and the reports."""
    dataset = load(config.data, None)  # type: ignore[arg-type]
    model = build_model(config.model, config.seed, image_shape=(1, 28, 28), num_classes=10)
    steps = num_steps(len(dataset.train), config.batch_size)
    reports = []
    for report in fit(
        model,
        dataset.train,
        dataset.validation if validate else None,
        optimizer=build_optimizer(config.optimizer, list(model.parameters())),
        schedule=build_schedule(
            config.scheduler,
            config.optimizer.learning_rate,
            steps_per_epoch=steps,
            epochs=config.epochs,
        ),
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
    ):
        reports.append(report)
        if evaluate_often:
            evaluate(predict(model, dataset.test), dataset.test.labels)
            torch.rand(3)
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest(), reports


@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_the_same_configuration_gives_the_same_bits_and_another_seed_does_not(
    model: str, make_config: Callable[..., Config]
) -> None:
    config = make_config(f"model={model}", "epochs=2", "scheduler=cosine")
    weights, reports = train(config)
    again, reports_again = train(config, validate=False, evaluate_often=True)
    assert weights == again, "evaluating more or less often changes nothing"
    assert [r.train for r in reports] == [r.train for r in reports_again]
    other, _ = train(make_config(f"model={model}", "epochs=2", "scheduler=cosine", "seed=1"))
    assert weights != other


def test_one_step_of_sgd_is_the_closed_form_gradient(make_config: Callable[..., Config]) -> None:
    """Softmax regression: dL/dW = (P - Y)^T X / N, dL/db = mean of (P - Y)."""
    config = make_config("optimizer=sgd", "optimizer.learning_rate=0.5", "epochs=1", "batch_size=1257")
    dataset = load(config.data, None)  # type: ignore[arg-type]
    model = build_model(config.model, 0, image_shape=(1, 28, 28), num_classes=10)
    weight, bias = (p.detach().double().numpy().copy() for p in model.parameters())
    images = dataset.train.normalised(slice(None)).flatten(1).double().numpy()
    truth = np.eye(10)[dataset.train.labels]
    scores = np.exp(images @ weight.T + bias)
    error = scores / scores.sum(1, keepdims=True) - truth
    weight -= 0.5 * error.T @ images / len(images)
    bias -= 0.5 * error.mean(0)
    list(
        fit(
            model,
            dataset.train,
            None,
            optimizer=build_optimizer(config.optimizer, list(model.parameters())),
            schedule=lambda step: 0.5,
            batch_size=config.batch_size,
            epochs=1,
            seed=0,
        )
    )
    trained_weight, trained_bias = (p.detach().numpy() for p in model.parameters())
    np.testing.assert_allclose(trained_weight, weight, atol=1e-6)
    np.testing.assert_allclose(trained_bias, bias, atol=1e-6)


class Constant(nn.Module):
    """The same logits for every image, in spite of all training."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.arange(10.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.bias.expand(len(images), 10)


class Still:
    def step(self, gradients: object, learning_rate: float) -> None:
        pass


def test_training_scores_weigh_a_partial_last_batch_by_its_images() -> None:
    labels = torch.tensor([9, 9, 9, 9, 0])
    split = Split(torch.zeros(5, 28, 28, dtype=torch.uint8), labels, 0.0, 1.0)
    arguments = {"optimizer": Still(), "schedule": lambda step: 0.1, "batch_size": 2}
    (report,) = fit(Constant(), split, split, epochs=1, seed=0, **arguments)
    assert report.train.loss == pytest.approx(report.validation.loss)
    assert report.train.accuracy == report.validation.accuracy == 0.8


def test_every_epoch_has_its_own_order_with_every_image_once() -> None:
    seen: list[list[int]] = []

    class Noting(Constant):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images[:, 0, 0, 0].mul(255).round().int().tolist())
            return super().forward(images)

    images = torch.zeros(50, 28, 28, dtype=torch.uint8)
    images[:, 0, 0] = torch.arange(50)
    split = Split(images, torch.zeros(50, dtype=torch.int64), 0.0, 1.0)
    arguments = {"optimizer": Still(), "schedule": lambda step: 0.1, "batch_size": 50}
    list(fit(Noting(), split, None, epochs=2, seed=0, **arguments))
    first, second = seen
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


@pytest.mark.fault("F14")
def test_a_loss_that_is_not_finite_stops_at_its_epoch_and_step(
    make_config: Callable[..., Config],
) -> None:
    config = make_config("optimizer=sgd", "optimizer.learning_rate=1e38", "batch_size=100")
    with pytest.raises(Diverged, match=r"epoch 1, step \d+: try a smaller optimizer.learning_rate"):
        train(config)


def test_what_before_step_raises_ends_the_training_before_that_step() -> None:
    class EnoughError(Exception):
        pass

    calls = 0

    def before_step(position: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise EnoughError

    class Counting(Still):
        steps = 0

        def step(self, gradients: object, learning_rate: float) -> None:
            self.steps += 1

    optimizer = Counting()
    split = Split(
        torch.zeros(9, 28, 28, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64), 0.0, 1.0
    )
    with pytest.raises(EnoughError):
        list(
            fit(
                Constant(),
                split,
                None,
                optimizer=optimizer,
                schedule=lambda step: 0.1,
                batch_size=1,
                epochs=1,
                seed=0,
                before_step=before_step,
            )
        )
    assert optimizer.steps == 2


def test_derived_seeds_differ_by_purpose_and_are_fixed_for_ever() -> None:
    assert derive_seed(0, "order", 1) == 3560704936019802908
    derived = {derive_seed(s, p, e) for s in range(9) for p in ("order", "dropout") for e in range(9)}
    assert len(derived) == 162
    assert derive_seed(1, "1", 2) != derive_seed(11, "", 2)
