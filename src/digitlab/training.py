"""The training loop: a generator of epoch reports. Knows neither Hydra nor MLflow nor files.

Whoever iterates logs, saves or stops early. Everything random derives from `seed`: the order of the
images from (seed, epoch), dropout from (seed, epoch); how often somebody evaluates changes nothing.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True, slots=True)
class EpochReport:
    """What one epoch did.

    epoch: from 1. train: means over the epoch's batches as they were trained on, with dropout.
    validation: by the weights at the end of the epoch, None without a validation split.
    learning_rate: of the epoch's last step. seconds: of the training alone.
    """

    epoch: int
    train: Scores
    validation: Scores | None
    learning_rate: float
    seconds: float
    images_per_second: float


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
    first_epoch: int = 1,
    before_step: Callable[[], None] = lambda: None,
) -> Iterator[EpochReport]:
    """Train `model` in place, yielding a report after each epoch (cross-entropy, last batch partial).

    Args:
        first_epoch: from 1; more than 1 goes on with a model and an optimizer restored from the end of
            the epoch before.
        before_step: called before every step, when the weights are whole; whatever it raises ends
            the training there.

    Raises:
        Diverged: the loss is not finite (on a CPU at once; on a GPU within 100 steps, so that the
            host need not wait for every step). The weights are then of no use.
    """
    for epoch in range(first_epoch, epochs + 1):
        started = time.perf_counter()
        scores, learning_rate = _train_epoch(
            model, train, optimizer, schedule, batch_size, epoch, seed, before_step
        )
        seconds = time.perf_counter() - started
        yield EpochReport(
            epoch=epoch,
            train=scores,
            validation=score(model, validation) if validation else None,
            learning_rate=learning_rate,
            seconds=seconds,
            images_per_second=len(train) / seconds,
        )


def num_steps(num_images: int, batch_size: int) -> int:
    """Steps in an epoch: the last batch may be partial."""
    return math.ceil(num_images / batch_size)


@torch.no_grad()
def _train_epoch(
    model: nn.Module,
    train: Split,
    optimizer: Optimizer,
    schedule: Schedule,
    batch_size: int,
    epoch: int,
    seed: int,
    before_step: Callable[[], None],
) -> tuple[Scores, float]:
    """One pass over the images in this epoch's order; its scores and its last learning rate."""
    device = train.labels.device
    differentiate = _differentiator(model, list(model.parameters()))
    order = _epoch_order(len(train), seed, epoch).to(device)
    _seed_dropout(seed, epoch, device)
    model.train()
    steps = num_steps(len(train), batch_size)
    check_every = 1 if device.type == "cpu" else 100
    losses: list[Tensor] = []
    predictions: list[Tensor] = []
    for step, batch in enumerate(torch.split(order, batch_size)):
        before_step()
        images, labels = train.normalised(batch), train.labels.index_select(0, batch)
        logits, loss, gradients = differentiate(images, labels)
        learning_rate = schedule((epoch - 1) * steps + step)
        optimizer.step(gradients, learning_rate)
        losses.append(loss)
        predictions.append(logits.contiguous().argmax(1))
        if (step + 1) % check_every == 0 or step + 1 == steps:
            _refuse_divergence(losses[-check_every:], epoch, step + 1)
    is_right = torch.cat(predictions) == train.labels.index_select(0, order)
    accuracy = is_right.count_nonzero().item() / len(train)
    return Scores(_mean(losses, len(train), batch_size), accuracy), learning_rate


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


def _seed_dropout(seed: int, epoch: int, device: torch.device) -> None:
    """Dropout draws from torch's global generator of the device; start it anew for each epoch."""
    derived = derive_seed(seed, "dropout", epoch)
    if device.type == "cuda":
        torch.cuda.manual_seed(derived)
    else:
        torch.default_generator.manual_seed(derived)


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
