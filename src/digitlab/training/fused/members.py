"""Members side by side as one model: their arrangement, and one step of all of them.

Knows no epochs, and of the orders of images only their seeds.
"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from digitlab.data.splits import Split
from digitlab.errors import Diverged
from digitlab.training.fused.architectures import FusedModel, fused_model
from digitlab.training.fused.stacked_optimizers import (
    OneByOne,
    StackedOptimizer,
    stack_optimizers,
    structure,
)
from digitlab.training.fused.stacking import stack_parameters
from digitlab.training.gradients import cross_entropy
from digitlab.training.loop import Position
from digitlab.training.own_optimizers import Optimizer
from digitlab.training.schedules import Schedule

STACKED, OWN_OPTIMIZERS = "all together", "optimizers one by one"
ORDERS_TO_KEEP_FOR = 8
MOST_PIXELS = 100_000_000  # normalised beforehand: twice as many as MNIST has
STEP_BYTES = 750_000  # of parameters that an optimizer moves at once: with its state, a core's cache


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One of the trainings, as fit() takes it. Its model and its optimizer are trained in place.

    position: where it is; all members of one fit_many() are in the same epoch, at the same step.
    has_left: set by the caller between two epochs: it is trained no further. diverged: set when its
    loss is not finite; it has left then, and its weights are of no use.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    seed: int
    order_seed: int
    position: Position
    has_left: bool = False
    diverged: Diverged | None = None


class NotFusable(Exception):  # noqa: N818  (a state of the members, not a mistake)
    """These members cannot be trained side by side, or not to the bits that each has alone."""


class Images:
    """The training images, normalised beforehand where members with so many orders ask for each that
    it pays: 4 bytes a pixel instead of one, and at most MOST_PIXELS of them."""

    def __init__(self, train: Split, num_orders: int) -> None:
        self._train = train
        is_kept = num_orders >= ORDERS_TO_KEEP_FOR and train.images.numel() <= MOST_PIXELS
        self._normalised = train.normalised(slice(None)) if is_kept else None

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, *image_shape) and labels (B,)."""
        labels = self._train.labels.index_select(0, index)
        if self._normalised is None:
            return self._train.normalised(index), labels
        return self._normalised.index_select(0, index), labels


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """Neighbours that make their step together: `groups` of equal size, each with one order.

    rows: of the members. optimizers: each with its rows among these, and their part of `gradients`.
    """

    rows: slice
    groups: slice
    model: FusedModel
    gradients: list[Tensor]
    optimizers: list[tuple[slice, StackedOptimizer, list[Tensor]]]


class Differentiated(NamedTuple):
    """Losses and gradients of some neighbours, before their parameters are moved.

    rows: of the members. logits: (K, C, B). losses: (K,). gradients: (K, ...) by each parameter.
    """

    rows: slice
    logits: Tensor
    losses: Tensor
    gradients: list[Tensor]


class SideBySide:
    """Members as one: neighbours share an order, and then the structure of their optimizers.

    groups: the rows of the members with one order. order_seeds: of each group.
    """

    def __init__(self, members: Sequence[Member], way: str = STACKED) -> None:
        self.members = arranged(members)
        models = [member.model for member in self.members]
        fused = fused_model(models)
        if fused is None:
            raise NotFusable("models of these kinds have no form for many at once")
        parameters = stack_parameters(models, spare=fused.spare(models[0]))
        self._whole = fused(models, parameters, 1)
        self.groups = _runs([member.order_seed for member in self.members])
        self.order_seeds = [self.members[rows.start].order_seed for rows in self.groups]
        optimizers = [member.optimizer for member in self.members]
        self._blocks = []
        for groups in _runs([own.stop - own.start for own in self.groups], longest=fused.max_groups):
            rows = slice(self.groups[groups.start].start, self.groups[groups.stop - 1].stop)
            own = [stacked[rows] for stacked in parameters]
            gradients = [torch.empty_like(part) for part in own]
            model = fused(models[rows], own, groups.stop - groups.start)
            stacks = _stack_all(optimizers[rows], own, gradients, way)
            self._blocks.append(_Block(rows, groups, model, gradients, stacks))

    def step(
        self,
        train: Images,
        chosen: Tensor,
        rates: Sequence[float],
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, Tensor]:
        """One step on the images that are `chosen`, (G, B) of each group.

        Losses (K,) and predictions (K, B) before it.
        """
        losses, predictions = [], []
        for result in self.differentiate(train, chosen, rates, generators):
            losses.append(result.losses)
            predictions.append(_predicted(result.logits))
        if len(losses) == 1:
            return losses[0], predictions[0]
        return torch.cat(losses), torch.cat(predictions)

    def differentiate(
        self,
        train: Images,
        chosen: Tensor,
        rates: Sequence[float],
        generators: Sequence[torch.Generator],
    ) -> Iterator[Differentiated]:
        """A step block by block, so that images are still in the cache when they are needed again; the
        parameters of each block are moved when the next one is asked for."""
        size = chosen.shape[1]
        for block in self._blocks:
            index = chosen[block.groups]
            images, labels = train.batch(index.flatten())
            logits = block.model.logits(
                images.view(len(index), size, *images.shape[1:]), generators[block.rows]
            )
            members_each = len(logits) // len(index)
            labels = labels.view(-1, size).repeat_interleave(members_each, 0)
            losses, by_class = cross_entropy(logits, labels)
            block.model.backpropagate(by_class, block.gradients)
            yield Differentiated(block.rows, logits, losses, block.gradients)
            own_rates = rates[block.rows]
            for rows, optimizer, gradients in block.optimizers:
                optimizer.step(gradients, own_rates[rows])

    def predict(self, split: Split) -> list[Tensor]:
        """Logits (N, C) of each member, on the CPU."""
        return self._whole.predict(split)


def _predicted(by_class: Tensor) -> Tensor:
    """The first of the largest classes, (K, B) of (K, C, B): five times as fast as argmax.

    uint8, or int16 where there are more classes than that holds.
    """
    ranks = _ranks(by_class.shape[1], by_class.device)
    if len(by_class) == 1:
        return by_class[0].t().contiguous().argmax(1).to(ranks.dtype).unsqueeze(0)
    largest = by_class.eq(by_class.amax(1, keepdim=True)).to(ranks.dtype)
    return largest.mul_(ranks).amax(1).neg_().add_(by_class.shape[1])


@functools.cache
def _ranks(num_classes: int, device: torch.device) -> Tensor:
    """C to 1, (C, 1): the first of equals is the largest."""
    kind = torch.uint8 if num_classes < 256 else torch.int16
    return torch.arange(num_classes, 0, -1, dtype=kind, device=device).view(-1, 1)


def _stack_all(
    optimizers: Sequence[Optimizer], parameters: Sequence[Tensor], gradients: Sequence[Tensor], way: str
) -> list[tuple[slice, StackedOptimizer, list[Tensor]]]:
    """Neighbours of one structure together."""
    parts = []
    for rows in _runs([*map(structure, optimizers)], longest=_fitting(parameters)):
        these, own = optimizers[rows], [stacked[rows] for stacked in parameters]
        together = OneByOne(these) if way == OWN_OPTIMIZERS else stack_optimizers(these, own)
        parts.append((rows, together, [stacked[rows] for stacked in gradients]))
    return parts


def _runs(values: Sequence[object], longest: int = 1 << 30) -> list[slice]:
    """The places of equal neighbours, in runs of at most so many."""
    parts, start = [], 0
    for _, run in itertools.groupby(values):
        stop = start + len([*run])
        parts += [slice(i, min(i + longest, stop)) for i in range(start, stop, longest)]
        start = stop
    return parts


def _fitting(parameters: Sequence[Tensor]) -> int:
    """Members that an optimizer moves at once."""
    size = sum(stacked[0].numel() * stacked.element_size() for stacked in parameters)
    return max(STEP_BYTES // size, 1)


def arranged(members: Sequence[Member]) -> list[Member]:
    """Neighbours share an order, or else the structure of their optimizers."""
    sharing = Counter(member.order_seed for member in members)

    def place(member: Member) -> tuple[int, str]:
        is_shared = sharing[member.order_seed] > 1
        return member.order_seed if is_shared else -1, str(structure(member.optimizer))

    return sorted(members, key=place)
