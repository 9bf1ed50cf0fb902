"""Whether members can be trained side by side to the bits of each alone, and how much is gained by it.

Copies of them rehearse a few steps both ways, on random images, and everything is compared: logits,
losses, gradients, optimizer state and weights of each step. Does not know what the answer is for.
"""

import copy
import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from digitlab.data.splits import Split
from digitlab.training.fused.exact_ways import Answer, equal, measure, remembered
from digitlab.training.fused.members import (
    OWN_OPTIMIZERS,
    STACKED,
    Images,
    Member,
    SideBySide,
    arranged,
)
from digitlab.training.fused.stacked_optimizers import structure
from digitlab.training.gradients import differentiator
from digitlab.training.loop import (
    Position,
    dropout_seed,
    flushing_denormals,
    seed_dropout,
)

NOT_AT_ALL = "not at all"
NUM_COMPARED = 16  # different members, spread over all places
NUM_TIMED, NUM_ROUNDS = 4, 8  # members alone; steps, of which the fastest counts
LARGEST_RATE = 2e-3
TRAINED_LOGITS = 5.0  # their standard deviation; differences in small ones are lost in the softmax
SHARE_BLACK = 0.8  # of the pixels, as in handwritten digits


def judge(members: Sequence[Member], train: Split, batch_size: int) -> Answer:
    """The way to train members side by side on these images, or NOT_AT_ALL.

    gain: the speed side by side as a multiple of that one by one; where the way is NOT_AT_ALL, what it
    would have been.
    """
    members = arranged(members)
    rest = len(train) % batch_size
    sizes = [batch_size, batch_size, *([rest] if rest else [])]
    ways = [STACKED, OWN_OPTIMIZERS, NOT_AT_ALL]

    def find() -> Answer:
        images = noise(sum(sizes), train.labels.device, train.image_shape, _num_classes(members))
        large = [_with_large_logits(member, images) for member in members]
        different = _Rehearsal(large, images, sizes, is_equal=False)
        equal_ones = _Rehearsal(_first_of_each_kind(large), images, sizes, is_equal=True)
        # Of all the images, since a few would stay in the cache.
        timed = [batch_size] * min(NUM_ROUNDS, len(train) // batch_size)
        real = _Rehearsal(large, train, timed, is_equal=False)
        for way in ways[:-1]:
            if equal_ones.is_exact(way) and different.is_exact(way):
                return Answer(way, real.gain(way))
        return Answer(NOT_AT_ALL, real.gain(STACKED))

    return remembered(_question(members, train, batch_size), ways, find)


class _Rehearsal:
    """Of members as they are arranged, each of which stays as it is: copies of them are trained.

    sizes: of each step's batch. is_equal: they see the same images at the same rate, and the members of
    one kind are the same one.
    """

    def __init__(
        self, members: Sequence[Member], images: Split, sizes: Sequence[int], *, is_equal: bool
    ) -> None:
        self._members, self._images, self._is_equal = members, images, is_equal
        self._device = images.labels.device
        seeds = dict.fromkeys(member.order_seed for member in members)
        self._batches: dict[int, list[Tensor]] = {}  # the images of each step, by order
        for number, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(0 if is_equal else number)
            order = torch.randperm(len(images), generator=generator)[: sum(sizes)]
            self._batches[seed] = list(torch.split(order.to(self._device), list(sizes)))
        shares = [1.0 if is_equal else (1 + k) / len(members) for k in range(len(members))]
        self._rates = [LARGEST_RATE * share for share in shares]

    def is_exact(self, way: str) -> bool:
        every = 1 if self._is_equal else math.ceil(len(self._members) / NUM_COMPARED)
        places = range(0, len(self._members), every)
        found, expected = self._side_by_side(way, places), dict[int, list[Tensor]]()
        for k in places:
            one = id(self._members[k].model)  # the same for equal members
            if one not in expected:
                expected[one] = self._alone(k)
            if not equal(found[k], expected[one]):
                return False
        return True

    def gain(self, way: str) -> float:
        """Seconds of a step of all of them one by one, over those side by side."""
        copies = [_copy(member) for member in self._members]
        own = [_copy(member) for member in self._members[:: math.ceil(len(copies) / NUM_TIMED)]]
        differentiators = [differentiator(one.model, list(one.model.parameters())) for one in own]
        steps_each = len(copies) // len(own)  # one after another, as a training takes them
        batches = {seed: itertools.cycle(those) for seed, those in self._batches.items()}
        turns = itertools.cycle(range(len(next(iter(self._batches.values())))))
        with torch.no_grad(), flushing_denormals():
            together = SideBySide(copies, way)
            images, generators = Images(self._images, len(together.groups)), self._generators()
            images_alone = Images(self._images, 1)

            def side_by_side() -> None:
                chosen = self._chosen(together, next(turns))
                together.step(images, chosen, self._rates, generators)

            def alone() -> None:
                for member, differentiate in zip(own, differentiators, strict=True):
                    for _ in range(steps_each):
                        batch = images_alone.batch(next(batches[member.order_seed]))
                        logits, _, gradients = differentiate(*batch)
                        member.optimizer.step(gradients, LARGEST_RATE)
                        logits.contiguous().argmax(1)

            works = {"alone": alone, "side by side": side_by_side}
            seconds = measure(works, self._device, NUM_ROUNDS)
        share = steps_each * len(own) / len(copies)
        return seconds["alone"] / share / seconds["side by side"]

    def _alone(self, k: int) -> list[Tensor]:
        """Everything that the plain loop computes for the k-th member."""
        member, seen = _copy(self._members[k]), list[Tensor]()
        images = Images(self._images, 1)
        differentiate = differentiator(member.model, list(member.model.parameters()))
        seed_dropout(member.seed, member.position, self._device)
        with torch.no_grad(), flushing_denormals():
            for index in self._batches[member.order_seed]:
                logits, loss, gradients = differentiate(*images.batch(index))
                seen += [part.clone() for part in (logits.t(), loss, *gradients)]
                member.optimizer.step(gradients, self._rates[k])
                seen += _state(member)
        return seen

    def _side_by_side(self, way: str, places: Sequence[int]) -> dict[int, list[Tensor]]:
        """Everything that is computed for the members at these places among all others."""
        copies = [_copy(member) for member in self._members]
        seen: dict[int, list[Tensor]] = {k: [] for k in places}
        with torch.no_grad(), flushing_denormals():
            together = SideBySide(copies, way)
            images, generators = Images(self._images, len(together.groups)), self._generators()
            for step in range(len(next(iter(self._batches.values())))):
                chosen = self._chosen(together, step)
                for made in together.differentiate(images, chosen, self._rates, generators):
                    for row, k in enumerate(range(made.rows.start, made.rows.stop)):
                        if k in seen:
                            parts = (made.logits, made.losses, *made.gradients)
                            seen[k] += [part[row].clone() for part in parts]
                for k in places:
                    seen[k] += _state(copies[k])
        return seen

    def _chosen(self, together: SideBySide, step: int) -> Tensor:
        return torch.stack([self._batches[seed][step] for seed in together.order_seeds])

    def _generators(self) -> list[torch.Generator]:
        """What dropout draws from."""
        seeds = [dropout_seed(member.seed, member.position.epoch) for member in self._members]
        return [torch.Generator(self._device).manual_seed(seed) for seed in seeds]


def _first_of_each_kind(members: Sequence[Member]) -> list[Member]:
    """In place of each member the first one whose optimizer has the same structure."""
    first = {structure(member.optimizer): member for member in reversed(members)}
    return [
        dataclasses.replace(first[structure(member.optimizer)], order_seed=member.order_seed)
        for member in members
    ]


def _with_large_logits(member: Member, images: Split) -> Member:
    """A copy at the start of an epoch."""
    member = dataclasses.replace(_copy(member), position=Position(epoch=1))
    *_, weight, bias = member.model.parameters()  # of the output layer
    with torch.no_grad():
        spread = float(member.model(images.normalised(slice(0, 100))).std())
        if math.isfinite(spread) and spread > 0:
            weight.mul_(TRAINED_LOGITS / spread)
            bias.mul_(TRAINED_LOGITS / spread)
    return member


def _copy(member: Member) -> Member:
    model, optimizer = copy.deepcopy((member.model, member.optimizer))
    return dataclasses.replace(member, model=model.train(), optimizer=optimizer)


def _state(member: Member) -> list[Tensor]:
    """Of the optimizer and the model, but for the number of steps."""
    state = [tensor for tensor in member.optimizer.state().values() if tensor.is_floating_point()]
    return [tensor.detach().clone() for tensor in (*state, *member.model.parameters())]


def _num_classes(members: Sequence[Member]) -> int:
    *_, bias = members[0].model.parameters()  # of the output layer
    return len(bias)


def noise(
    num_images: int, device: torch.device, image_shape: tuple[int, int, int], num_classes: int
) -> Split:
    """Images with as much black as handwritten digits have."""
    generator = torch.Generator().manual_seed(0)
    channels, *sides = image_shape
    shape = (num_images, *sides) if channels == 1 else (num_images, *image_shape)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    images[torch.rand(shape, generator=generator) < SHARE_BLACK] = 0
    labels = torch.randint(num_classes, (num_images,), generator=generator)
    return Split(images.to(device), labels.to(device), mean=0.13, std=0.31)


def _question(members: Sequence[Member], train: Split, batch_size: int) -> str:
    orders = Counter(Counter(member.order_seed for member in members).values())
    kinds = Counter(str(structure(member.optimizer)) for member in members)
    parameters = list(members[0].model.parameters())
    shapes = [tuple(parameter.shape) for parameter in parameters]
    drops = any(getattr(layer, "p", 0) for member in members for layer in member.model.modules())
    return (
        f"{parameters[0].device.type}: training of {len(members)} x {shapes}{' with dropout' * drops} "
        f"on {len(train)} images {train.image_shape} by {batch_size}, orders {sorted(orders.items())}, "
        f"{sorted(kinds.items())}"
    )
