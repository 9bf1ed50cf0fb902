"""The training loop: a generator of epoch reports. Knows neither Hydra nor MLflow nor files.

Whoever iterates logs, saves or stops early. Everything random derives from seeds, dropout from (seed,
epoch) and the order of images from (order_seed, epoch); how often a run is evaluated changes nothing.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from digitlab.data.splits import Split
from digitlab.errors import Diverged
from digitlab.randomness import derive_seed
from digitlab.training.evaluation import Scores, score
from digitlab.training.gradients import differentiator, trained
from digitlab.training.own_optimizers import Optimizer
from digitlab.training.schedules import Schedule

NUM_FIRST_LOSSES = 30  # are recorded; a verdict looks at the first ten


@dataclasses.dataclass(frozen=True, slots=True)
class EpochReport:
    """What one epoch did.

    epoch: from 1. train: means over the epoch's batches as they were trained on, with dropout.
    validation: by the weights at the end of the epoch, None without a validation split.
    learning_rate: of the epoch's last step. seconds: of the training alone.
    order: SHA-256 of the order of the images (int64 indices).
    first_losses: of the steps among the first NUM_FIRST_LOSSES of the whole training.
    """

    epoch: int
    train: Scores
    validation: Scores | None
    learning_rate: float
    seconds: float
    images_per_second: float
    order: str
    first_losses: tuple[float, ...]


@dataclasses.dataclass(slots=True, kw_only=True)
class Position:
    """A moment between two steps. With the model and the optimizer, all that the rest depends on.

    epoch: the current one, from 1. step: the number of its steps that are done. losses, predictions: of
    these steps, () and (B,) each. dropout: the state of the generator that dropout draws from; None at
    the start of an epoch. seconds: spent before `resumed_at`, this process's performance counter at
    the epoch's start or continuation.
    """

    epoch: int
    step: int = 0
    losses: list[Tensor] = dataclasses.field(default_factory=list)
    predictions: list[Tensor] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    dropout: Tensor | None = None
    resumed_at: float = 0.0


def fit(
    model: nn.Module,
    train: Split,
    validation: Split | None,
    *,
    optimizer: Optimizer,
    schedule: Schedule,
    batch_size: int,
    epochs: int,
    seed: int,
    order_seed: int | None = None,
    start: Position | None = None,
    before_step: Callable[[Position], None] = lambda position: None,
) -> Iterator[EpochReport]:
    """Train `model` in place, yielding a report after each epoch (cross-entropy, last batch partial).

    Args:
        order_seed: decides the order of the images; None: `seed`.
        start: where to go on, with a model and an optimizer restored from that very moment.
        before_step: called before every step, when the weights are whole; an exception that it raises
            ends the training there. `seconds` and `dropout` of its position are as they were when
            the epoch began or went on: see `paused`.

    Raises:
        Diverged: the loss is not finite (on a CPU at once; on a GPU within 100 steps, so that the
            host need not wait for every step). The weights are then of no use.
    """
    position = start or Position(epoch=1)
    steps_per_epoch = num_steps(len(train), batch_size)
    while position.epoch <= epochs:
        order, learning_rate = _train_epoch(
            model,
            train,
            optimizer,
            schedule,
            batch_size,
            position,
            seed,
            seed if order_seed is None else order_seed,
            before_step,
        )
        losses = torch.stack(position.losses)
        yield EpochReport(
            epoch=position.epoch,
            train=Scores(mean_loss(losses, len(train), batch_size), _accuracy(position, train, order)),
            validation=score(model, validation) if validation else None,
            learning_rate=learning_rate,
            seconds=position.seconds,
            images_per_second=len(train) / position.seconds,
            order=hashlib.sha256(order.numpy().tobytes()).hexdigest(),
            first_losses=first_losses(losses, position.epoch, steps_per_epoch),
        )
        position = Position(epoch=position.epoch + 1)


def num_steps(num_images: int, batch_size: int) -> int:
    """Steps in an epoch: the last batch may be partial."""
    return math.ceil(num_images / batch_size)


def paused(position: Position, device: torch.device) -> Position:
    """The position from which a training goes on, perhaps in another process."""
    now = time.perf_counter()
    return dataclasses.replace(
        position, seconds=position.seconds + now - position.resumed_at, dropout=_dropout_state(device)
    )


@torch.no_grad()
def _train_epoch(
    model: nn.Module,
    train: Split,
    optimizer: Optimizer,
    schedule: Schedule,
    batch_size: int,
    position: Position,
    seed: int,
    order_seed: int,
    before_step: Callable[[Position], None],
) -> tuple[Tensor, float]:
    """The rest of a pass over the images; this epoch's order (on the CPU), its last learning rate."""
    device, epoch = train.labels.device, position.epoch
    position.resumed_at = time.perf_counter()
    differentiate = differentiator(model, trained(model))
    order = epoch_order(len(train), order_seed, epoch)
    seed_dropout(seed, position, device)
    model.train()
    steps = num_steps(len(train), batch_size)
    check_every = 1 if device.type == "cpu" else 100
    batches = torch.split(order.to(device), batch_size)
    learning_rate = schedule(epoch * steps - 1)
    with flushing_denormals():
        while position.step < steps:
            before_step(position)
            batch = batches[position.step]
            images, labels = train.normalised(batch), train.labels.index_select(0, batch)
            logits, loss, gradients = differentiate(images, labels)
            optimizer.step(gradients, schedule((epoch - 1) * steps + position.step))
            position.losses.append(loss)
            position.predictions.append(logits.contiguous().argmax(1))
            position.step += 1
            if position.step % check_every == 0 or position.step == steps:
                _refuse_divergence(position.losses[-check_every:], epoch, position.step)
    position.seconds += time.perf_counter() - position.resumed_at
    return order, learning_rate


@contextmanager
def flushing_denormals() -> Iterator[None]:
    """Numbers below 1.2e-38 are zero meanwhile: a processor takes ten times as long over them.

    Softmax makes them, of logits that are far apart. On one thread only: it is a state of the thread
    that calls, and others would go on rounding otherwise.
    """
    is_single_threaded = torch.get_num_threads() == 1
    if is_single_threaded:
        torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if is_single_threaded:
            torch.set_flush_denormal(False)


def _accuracy(position: Position, train: Split, order: Tensor) -> float:
    labels = train.labels.index_select(0, order.to(train.labels.device))
    return (torch.cat(position.predictions) == labels).count_nonzero().item() / len(train)


def first_losses(losses: Tensor, epoch: int, steps_per_epoch: int) -> tuple[float, ...]:
    """The losses (S,) of an epoch, cut to the first steps of the training."""
    return tuple(losses[: max(NUM_FIRST_LOSSES - (epoch - 1) * steps_per_epoch, 0)].tolist())


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """A permutation from (seed, epoch) alone, so that training can resume at any epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_images, generator=generator)


def seed_dropout(seed: int, position: Position, device: torch.device) -> None:
    """Dropout draws from torch's generator of the device: anew in each epoch, or where it was."""
    if position.dropout is not None and device.type == "cuda":
        torch.cuda.set_rng_state(position.dropout)
    elif position.dropout is not None:
        torch.default_generator.set_state(position.dropout)
    elif device.type == "cuda":
        torch.cuda.manual_seed(dropout_seed(seed, position.epoch))
    else:
        torch.default_generator.manual_seed(dropout_seed(seed, position.epoch))


def dropout_seed(seed: int, epoch: int) -> int:
    return derive_seed(seed, "dropout", epoch)


def _dropout_state(device: torch.device) -> Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state()
    return torch.default_generator.get_state()


def _refuse_divergence(losses: Sequence[Tensor], epoch: int, last_step: int) -> None:
    """losses: of the steps up to `last_step` that were not checked before."""
    values = [losses[0].item()] if len(losses) == 1 else torch.stack(list(losses)).tolist()
    if diverged := divergence(values, epoch, last_step):
        raise diverged


def divergence(losses: Sequence[float], epoch: int, last_step: int) -> Diverged | None:
    """For the first loss that is not finite; losses: of the steps up to `last_step`."""
    for step, value in enumerate(losses, last_step - len(losses) + 1):
        if not math.isfinite(value):
            return Diverged(epoch=epoch, step=step, loss=value)
    return None


def mean_loss(losses: Tensor, num_images: int, batch_size: int) -> float:
    """Mean over images of per-batch means (S,); the last batch may be smaller."""
    weights = torch.full((len(losses),), batch_size, dtype=torch.float64)
    weights[-1] = num_images - batch_size * (len(losses) - 1)
    return (losses.cpu().double() @ weights).item() / num_images
