"""The training loop of many members at once, in the manner of fit(): a generator of epoch reports.

Each member ends with the bits that it has alone, whoever else is there; so members may come from
checkpoints of other groups, leave after any epoch, or diverge, without the others noticing.
"""

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from digitlab.data import NUM_CLASSES, SIDE, Split
from digitlab.fused.epochs import Moment, train_epoch
from digitlab.fused.forms import choose
from digitlab.fused.members import (
    OWN_OPTIMIZERS,
    STACKED,
    Images,
    Member,
    NotFusable,
    SideBySide,
    arranged,
)
from digitlab.fused.optimizers import structure
from digitlab.training import (
    EpochReport,
    Position,
    fit,
)

NOT_AT_ALL = "not at all"
NUM_TRIED = 16  # of the members are compared with themselves alone


def fit_many(
    members: Sequence[Member],
    train: Split,
    validation: Split | None,
    *,
    batch_size: int,
    epochs: int,
    is_exact: bool = True,
    before_step: Callable[[Moment], None] = lambda moment: None,
) -> Iterator[list[tuple[Member, EpochReport]]]:
    """Train all members in place, yielding after each epoch a report of each that is still there.

    Args:
        is_exact: whether each member must have the bits that it has alone. Without, the fastest way is
            taken, and results differ from those alone by rounding.
        before_step: called before every step, when all weights are whole; whatever it raises ends the
            training there.

    Raises:
        NotFusable: before anything has been changed.
    """
    together: SideBySide | None = None
    while (there := [m for m in members if not m.has_left]) and there[0].position.epoch <= epochs:
        if together is None or len(there) < len(together.members):
            way = best_way(there, len(train), batch_size) if is_exact else STACKED
            if way == NOT_AT_ALL:
                raise NotFusable("this machine rounds them otherwise side by side than alone")
            together = SideBySide(there, is_exact=is_exact, way=way)
            images = Images(train, len(together.groups))
        yield train_epoch(together, train, images, validation, batch_size, before_step)


def best_way(members: Sequence[Member], num_images: int, batch_size: int) -> str:
    """How copies of the members, side by side, got through a few steps with the bits of some alone."""
    device = next(members[0].model.parameters()).device
    trial = _noise(2 * batch_size + num_images % batch_size, device)
    those = arranged(members)
    tried = range(0, len(those), math.ceil(len(those) / NUM_TRIED))

    def copies(wanted: Sequence[int]) -> list[Member]:
        return [_copy(those[k], rate=1e-3 * (1 + k / len(those))) for k in wanted]

    def alone() -> list[Tensor]:
        made = copies(tried)
        for member in made:
            for _ in fit(
                member.model,
                trial,
                None,
                optimizer=member.optimizer,
                schedule=member.schedule,
                batch_size=batch_size,
                epochs=1,
                seed=member.seed,
                order_seed=member.order_seed,
            ):
                pass
        return _weights(made)

    def side_by_side(way: str) -> list[Tensor]:
        made = copies(range(len(those)))
        together = SideBySide(made, is_exact=True, way=way)
        images = Images(trial, len(together.groups))
        train_epoch(together, trial, images, None, batch_size, lambda moment: None)
        return _weights([made[k] for k in tried])

    orders = Counter(Counter(member.order_seed for member in members).values())
    kinds = Counter(str(structure(member.optimizer)) for member in members)
    shapes = [tuple(parameter.shape) for parameter in members[0].model.parameters()]
    drops = any(getattr(layer, "p", 0) for member in members for layer in member.model.modules())
    question = (
        f"{device.type}: training of {len(members)} x {shapes}{' with dropout' * drops} on batches of "
        f"{batch_size} and {num_images % batch_size}, orders {sorted(orders.items())}, "
        f"{sorted(kinds.items())}"
    )
    return choose(question, [STACKED, OWN_OPTIMIZERS, NOT_AT_ALL], side_by_side, alone)


def _copy(member: Member, rate: float) -> Member:
    model, optimizer = copy.deepcopy((member.model, member.optimizer))
    return dataclasses.replace(
        member,
        model=model,
        optimizer=optimizer,
        schedule=lambda step: rate,
        position=Position(epoch=1),
    )


def _weights(members: Sequence[Member]) -> list[Tensor]:
    return [p.detach().clone() for member in members for p in member.model.parameters()]


def _noise(num_images: int, device: torch.device) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num_images, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    labels = torch.randint(NUM_CLASSES, (num_images,), generator=generator)
    return Split(images.to(device), labels.to(device), mean=0.5, std=0.3)
