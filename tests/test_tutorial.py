"""The tutorial's own numbers on real MNIST. The long ones run in `make test-all`."""

from collections.abc import Callable
from pathlib import Path
from statistics import mean

from digitlab.config.schema import Config
from digitlab.data.splits import load
from digitlab.models.build import build_model
from digitlab.training.evaluation import score
from digitlab.training.loop import fit, num_steps
from digitlab.training.optimizers import build_optimizer
from digitlab.training.schedules import build_schedule
from tests.support.cli import slow


def accuracies(config: Config, root: Path, seeds: range) -> list[float]:
    """Test accuracy in percent for each seed."""
    dataset = load(config.data, root)
    steps = num_steps(len(dataset.train), config.batch_size)
    schedule = build_schedule(
        config.scheduler, config.optimizer.learning_rate, steps_per_epoch=steps, epochs=config.epochs
    )
    found = []
    for seed in seeds:
        model = build_model(config.model, seed, image_shape=(1, 28, 28), num_classes=10)
        optimizer = build_optimizer(config.optimizer, list(model.parameters()))
        settings = {"batch_size": config.batch_size, "epochs": config.epochs, "seed": seed}
        for _ in fit(model, dataset.train, None, optimizer=optimizer, schedule=schedule, **settings):
            pass
        found.append(100 * score(model, dataset.test).accuracy)
    return found


def test_as_described_the_tutorial_reaches_82_percent(
    make_config: Callable[..., Config], mnist: Path
) -> None:
    found = accuracies(make_config("experiment=tutorial_as_described"), mnist, range(8))
    assert abs(mean(found) - 82.5) <= 0.5, found


@slow
def test_as_written_the_tutorial_reaches_its_91_percent(
    make_config: Callable[..., Config], mnist: Path
) -> None:
    found = accuracies(make_config("experiment=tutorial_as_written"), mnist, range(1))
    assert abs(mean(found) - 91.8) <= 0.5, found


def test_the_best_logistic_regression(make_config: Callable[..., Config], mnist: Path) -> None:
    assert mean(accuracies(make_config("experiment=logistic_best"), mnist, range(3))) >= 92.5


@slow
def test_the_best_cnn(make_config: Callable[..., Config], mnist: Path) -> None:
    assert mean(accuracies(make_config("experiment=cnn_best"), mnist, range(1))) >= 99.2
