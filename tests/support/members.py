"""Members trained alone and side by side, and all that must be equal to the bit."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from digitlab.config.schema import Config
from digitlab.data.splits import Dataset, Split
from digitlab.errors import Diverged
from digitlab.models.build import build_model
from digitlab.models.saved import weights_digest
from digitlab.training.fused.loop import fit_many
from digitlab.training.fused.members import Member
from digitlab.training.loop import EpochReport, Position, fit, num_steps
from digitlab.training.optimizers import build_optimizer
from digitlab.training.schedules import build_schedule

OPTIMIZERS = [
    ["optimizer=sgd"],
    ["optimizer=sgd", "optimizer.momentum=0.9"],
    ["optimizer=sgd", "optimizer.momentum=0.8", "optimizer.nesterov=true"],
    ["optimizer=adam"],
    ["optimizer=adam", "optimizer.beta_1=0.5", "optimizer.epsilon=1e-4"],
    ["optimizer=adamw"],
    ["optimizer=rmsprop"],
    ["optimizer=rmsprop", "optimizer.momentum=0.5", "optimizer.alpha=0.9"],
    ["optimizer=adagrad"],
    ["optimizer=adagrad", "optimizer.weight_decay=0.1", "optimizer.initial_accumulator=0.1"],
]
SCHEDULES = ["constant", "cosine", "step", "one_cycle", "inverse_sqrt"]


def some_of(dataset: Dataset, count: int) -> Split:
    train = dataset.train
    return dataclasses.replace(train, images=train.images[:count], labels=train.labels[:count])


def drawn(shape: tuple[int, int, int], num_classes: int, count: int) -> Split:
    """Images of which nothing can be learnt; dense, as photographs are."""
    draw = torch.Generator().manual_seed(count)
    size = shape[1:] if shape[0] == 1 else shape
    images = torch.randint(0, 256, (count, *size), generator=draw, dtype=torch.uint8)
    return Split(images, torch.randint(num_classes, (count,), generator=draw), mean=0.5, std=0.25)


def member(config: Config, train: Split, num_classes: int = 10) -> Member:
    model = build_model(
        config.model, config.seed, image_shape=train.image_shape, num_classes=num_classes
    )
    order_seed = config.data.order_seed
    return Member(
        model=model,
        optimizer=build_optimizer(config.optimizer, list(model.parameters())),
        schedule=build_schedule(
            config.scheduler,
            config.optimizer.learning_rate,
            steps_per_epoch=num_steps(len(train), config.batch_size),
            epochs=config.epochs,
        ),
        seed=config.seed,
        order_seed=config.seed if order_seed is None else order_seed,
        position=Position(epoch=1),
    )


@dataclasses.dataclass
class Trained:
    """Everything that must be equal to the bit. ended: how a training that diverged did."""

    weights: str
    reports: list[EpochReport]
    optimizer: list[bytes]
    ended: str


def trained(member: Member, reports: Sequence[EpochReport], ended: object) -> Trained:
    return Trained(
        "" if ended else weights_digest(member.model.state_dict()),
        [dataclasses.replace(r, seconds=0.0, images_per_second=0.0) for r in reports],
        [] if ended else [t.contiguous().numpy().tobytes() for t in member.optimizer.state().values()],
        str(ended or ""),
    )


def alone(config: Config, train: Split, validation: Split | None, num_classes: int = 10) -> Trained:
    single, reports, ended = member(config, train, num_classes), list[EpochReport](), None
    try:
        for report in fit(
            single.model,
            train,
            validation,
            optimizer=single.optimizer,
            schedule=single.schedule,
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=single.seed,
            order_seed=single.order_seed,
        ):
            reports.append(report)
    except Diverged as error:
        ended = error
    return trained(single, reports, ended)


def go_on_alone(
    each: Member,
    train: Split,
    config: Config,
    before_step: Callable[[Position], None] = lambda position: None,
) -> None:
    for _ in fit(
        each.model,
        train,
        None,
        optimizer=each.optimizer,
        schedule=each.schedule,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=each.seed,
        order_seed=each.order_seed,
        start=each.position,
        before_step=before_step,
    ):
        pass


def together(
    configs: Sequence[Config],
    train: Split,
    validation: Split | None,
    num_classes: int = 10,
    **options: Any,
) -> list[Trained]:
    members = [member(config, train, num_classes) for config in configs]
    told: dict[Member, list[EpochReport]] = {each: [] for each in members}
    first = configs[0]
    for reports in fit_many(
        members, train, validation, batch_size=first.batch_size, epochs=first.epochs, **options
    ):
        for each, report in reports:
            told[each].append(report)
    return [trained(each, told[each], each.diverged) for each in members]


def check(
    configs: Sequence[Config],
    train: Split,
    validation: Split | None = None,
    num_classes: int = 10,
) -> None:
    expected = [alone(config, train, validation, num_classes) for config in configs]
    found = together(configs, train, validation, num_classes)
    for config, one, other in zip(configs, found, expected, strict=True):
        assert one == other, config
