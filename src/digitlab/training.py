"""The training loop: a generator of epoch reports. Knows neither Hydra nor MLflow nor files.

Whoever iterates logs, saves or stops early. Everything random derives from `seed`: the order of the
images from (seed, epoch), dropout from (seed, epoch); how often somebody evaluates changes nothing.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from digitlab.data import Split
from digitlab.errors import Diverged
from digitlab.evaluation import Scores, score
from digitlab.models import ClosedForm
from digitlab.optimizers import Optimizer
from digitlab.randomness import derive_seed
from digitlab.schedules import Schedule

NUM_FIRST_LOSSES = 30  # rounding stays below 1e-6 in so many steps, and a wrong learning rate does not


@dataclasses.dataclass(frozen=True, slots=True)
class EpochReport:
    """What one epoch did.

    epoch: from 1. train: means over the epoch's batches as they were trained on, with dropout.
    validation: by the weights at the end of the epoch, None without a validation split.
    learning_rate: of the epoch's last step. seconds: of the training alone.
    order: SHA-256 of the order of the images (int64 indices).
    first_losses: of those steps that are among the first NUM_FIRST_LOSSES of the whole training.
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
    """A moment between two steps. With the model and the optimizer it is all that the rest depends on.

    epoch: from 1, the one that is being trained. step: how many of its steps are done. losses: of
    those steps. predictions: of their images, (B,) for each step. dropout: the state of the generator
    that dropout draws from; None at the start of an epoch. seconds: that were spent before
    `resumed_at`, which is this process's performance counter at the epoch's start or continuation.
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
    start: Position | None = None,
    before_step: Callable[[Position], None] = lambda position: None,
) -> Iterator[EpochReport]:
    """Train `model` in place, yielding a report after each epoch (cross-entropy, last batch partial).

    Args:
        start: where to go on, with a model and an optimizer restored from that very moment.
        before_step: called before every step, when the weights are whole; whatever it raises ends
            the training there. `seconds` and `dropout` of what it is given are as they were when the
            epoch began or went on: see `paused`.

    Raises:
        Diverged: the loss is not finite (on a CPU at once; on a GPU within 100 steps, so that the
            host need not wait for every step). The weights are then of no use.
    """
    position = start or Position(epoch=1)
    while position.epoch <= epochs:
        order, learning_rate = _train_epoch(
            model, train, optimizer, schedule, batch_size, position, seed, before_step
        )
        yield EpochReport(
            epoch=position.epoch,
            train=_scores(position, train, order, batch_size),
            validation=score(model, validation) if validation else None,
            learning_rate=learning_rate,
            seconds=position.seconds,
            images_per_second=len(train) / position.seconds,
            order=hashlib.sha256(order.numpy().tobytes()).hexdigest(),
            first_losses=_first_losses(position, num_steps(len(train), batch_size)),
        )
        position = Position(epoch=position.epoch + 1)


def num_steps(num_images: int, batch_size: int) -> int:
    """Steps in an epoch: the last batch may be partial."""
    return math.ceil(num_images / batch_size)


def paused(position: Position, device: torch.device) -> Position:
    """The position as somebody needs it who goes on from it, perhaps in another process."""
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
    before_step: Callable[[Position], None],
) -> tuple[Tensor, float]:
    """The rest of a pass over the images; this epoch's order (on the CPU), its last learning rate."""
    device, epoch = train.labels.device, position.epoch
    position.resumed_at = time.perf_counter()
    differentiate = _differentiator(model, list(model.parameters()))
    order = _epoch_order(len(train), seed, epoch)
    _seed_dropout(seed, position, device)
    model.train()
    steps = num_steps(len(train), batch_size)
    check_every = 1 if device.type == "cpu" else 100
    batches = torch.split(order.to(device), batch_size)
    learning_rate = schedule(epoch * steps - 1)
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


def _scores(position: Position, train: Split, order: Tensor, batch_size: int) -> Scores:
    labels = train.labels.index_select(0, order.to(train.labels.device))
    num_right = (torch.cat(position.predictions) == labels).count_nonzero().item()
    return Scores(_mean(position.losses, len(train), batch_size), num_right / len(train))


def _first_losses(position: Position, steps: int) -> tuple[float, ...]:
    """Those of the epoch's losses that are among the first of the training."""
    wanted = position.losses[: max(NUM_FIRST_LOSSES - (position.epoch - 1) * steps, 0)]
    return tuple(torch.stack(wanted).tolist()) if wanted else ()


Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Sequence[Tensor]]]


def _differentiator(model: nn.Module, parameters: Sequence[Tensor]) -> Gradients:
    """A function of images and labels: logits (B, 10), mean loss, its gradients by `parameters`."""

    def closed_form(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        logits = model(images)
        loss, logit_gradients = cross_entropy(logits, labels)
        return logits, loss, backpropagate(images, logit_gradients)

    def autograd(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        with torch.enable_grad():
            logits = model(images)
        detached = logits.detach()
        loss, logit_gradients = cross_entropy(detached, labels)
        # In this thread, on a GPU too: in autograd's own, whose first task is a product of matrices,
        # cuBLAS warns that there is no CUDA context.
        with torch.autograd.set_multithreading_enabled(False):
            gradients = torch.autograd.grad(logits, parameters, logit_gradients)
        return detached, loss, gradients

    if not isinstance(model, ClosedForm):
        return autograd
    backpropagate = model.backpropagate
    return closed_form


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of logits (B, 10) and its gradient by them: (softmax - one-hot) / B.

    Bishop 2006, equation 4.109. Class by class, since torch's softmax over rows of ten takes 16 us
    and over columns 2 us; through autograd the loss alone would take 50 us a step.
    """
    log_softmax = functional.log_softmax(logits.t(), dim=0)  # (10, B)
    loss = functional.nll_loss(log_softmax.t(), labels)
    gradient = log_softmax.exp_().scatter_(0, labels.unsqueeze(0), -1.0, reduce="add")
    return loss, gradient.div_(len(labels)).t()


def _epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """A permutation from (seed, epoch) alone, so that training can resume at any epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_images, generator=generator)


def _seed_dropout(seed: int, position: Position, device: torch.device) -> None:
    """Dropout draws from torch's generator of the device: anew in each epoch, or where it was."""
    if position.dropout is not None and device.type == "cuda":
        torch.cuda.set_rng_state(position.dropout)
    elif position.dropout is not None:
        torch.default_generator.set_state(position.dropout)
    elif device.type == "cuda":
        torch.cuda.manual_seed(derive_seed(seed, "dropout", position.epoch))
    else:
        torch.default_generator.manual_seed(derive_seed(seed, "dropout", position.epoch))


def _dropout_state(device: torch.device) -> Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state()
    return torch.default_generator.get_state()


def _refuse_divergence(losses: Sequence[Tensor], epoch: int, last_step: int) -> None:
    """`losses` are those of the steps up to `last_step` that nobody has looked at yet."""
    values = [losses[0].item()] if len(losses) == 1 else torch.stack(list(losses)).tolist()
    for step, value in enumerate(values, last_step - len(losses) + 1):
        if not math.isfinite(value):
            raise Diverged(epoch=epoch, step=step, loss=value)


def _mean(losses: list[Tensor], num_images: int, batch_size: int) -> float:
    """Mean over images of per-batch means; the last batch may be smaller."""
    weights = torch.full((len(losses),), batch_size, dtype=torch.float64)
    weights[-1] = num_images - batch_size * (len(losses) - 1)
    return (torch.stack(losses).cpu().double() @ weights).item() / num_images
