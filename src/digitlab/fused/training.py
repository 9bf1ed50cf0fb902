"""The training loop of many members at once, in the manner of fit(): a generator of epoch reports.

Each member ends with the bits that it has alone, whoever else is there; so members may come from
checkpoints of other groups, leave after any epoch, or diverge, without the others noticing.
"""

import copy
import dataclasses
import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from digitlab.data import NUM_CLASSES, SIDE, Split
from digitlab.evaluation import Scores, score_logits
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
    divergence,
    dropout_seed,
    epoch_order,
    first_losses,
    fit,
    flushing_denormals,
    mean_loss,
    num_steps,
)

NOT_AT_ALL = "not at all"
NUM_TRIED = 16  # of the members are compared with themselves alone


class Moment:
    """A moment between two steps of an epoch, with what has happened in the epoch so far."""

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        self.epoch, self.step = members[0].position.epoch, members[0].position.step
        self.members = members
        self.generators = [_generator(member, device) for member in members]
        self.losses: list[Tensor] = []  # (K,) of each step in this process
        self.predictions: list[Tensor] = []  # (K, B)
        self._resumed_at = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Each member's share."""
        return (time.perf_counter() - self._resumed_at) / len(self.members)

    def positions(self) -> Iterator[tuple[Member, Position]]:
        """Of each member that has not diverged; from there it can go on alone, or among others."""
        seconds, losses = self.seconds, torch.stack(self.losses, 1) if self.losses else None
        for k, (member, generator) in enumerate(zip(self.members, self.generators, strict=True)):
            if member.diverged:
                continue
            if not self.step:
                yield member, Position(epoch=self.epoch)
                continue
            earlier = member.position
            yield (
                member,
                Position(
                    epoch=self.epoch,
                    step=self.step,
                    losses=[*earlier.losses, *(() if losses is None else losses[k].unbind())],
                    predictions=[*earlier.predictions, *(batch[k] for batch in self.predictions)],
                    seconds=earlier.seconds + seconds,
                    dropout=generator.get_state(),
                ),
            )


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
        yield _train_epoch(together, train, images, validation, batch_size, before_step)


@torch.no_grad()
def _train_epoch(
    together: SideBySide,
    train: Split,
    images: Images,
    validation: Split | None,
    batch_size: int,
    before_step: Callable[[Moment], None],
) -> list[tuple[Member, EpochReport]]:
    members, device = together.members, train.labels.device
    moment = Moment(members, device)
    steps = num_steps(len(train), batch_size)
    orders = [epoch_order(len(train), seed, moment.epoch) for seed in together.order_seeds]
    batches = torch.split(torch.stack(orders).to(device), batch_size, dim=1)
    check_every = 1 if device.type == "cpu" else 100
    with flushing_denormals():
        while moment.step < steps:
            before_step(moment)
            number = (moment.epoch - 1) * steps + moment.step
            losses, predictions = together.step(
                images,
                batches[moment.step],
                [member.schedule(number) for member in members],
                moment.generators,
            )
            moment.losses.append(losses)
            moment.predictions.append(predictions)
            moment.step += 1
            if moment.step % check_every == 0 or moment.step == steps:
                _notice_divergence(moment, check_every)
                if all(member.diverged for member in members):
                    return []
    return _reports(together, moment, train, validation, orders, batch_size)


def _reports(
    together: SideBySide,
    moment: Moment,
    train: Split,
    validation: Split | None,
    orders: Sequence[Tensor],
    batch_size: int,
) -> list[tuple[Member, EpochReport]]:
    """Of the members that have not diverged, which then stand at the beginning of the next epoch."""
    steps = num_steps(len(train), batch_size)
    digests = [hashlib.sha256(order.numpy().tobytes()).hexdigest() for order in orders]
    digest_of = dict(zip(together.order_seeds, digests, strict=True))
    losses, num_right = _epoch_losses(moment), _num_right(together, moment, train, orders)
    logits = together.predict(validation) if validation else []
    seconds = moment.seconds
    reports = []
    for k, member in enumerate(moment.members):
        if member.diverged:
            continue
        spent = member.position.seconds + seconds
        report = EpochReport(
            epoch=moment.epoch,
            train=Scores(mean_loss(losses[k], len(train), batch_size), num_right[k] / len(train)),
            validation=score_logits(logits[k], validation.labels.cpu()) if validation else None,
            learning_rate=member.schedule(moment.epoch * steps - 1),
            seconds=spent,
            images_per_second=len(train) / spent,
            order=digest_of[member.order_seed],
            first_losses=first_losses(losses[k], moment.epoch, steps),
        )
        member.position = Position(epoch=moment.epoch + 1)
        reports.append((member, report))
    return reports


def _epoch_losses(moment: Moment) -> Tensor:
    """(K, S) of all steps of the epoch, those before an interruption too."""
    losses = torch.stack(moment.losses, 1)
    if not moment.members[0].position.losses:
        return losses
    earlier = [torch.stack(member.position.losses) for member in moment.members]
    return torch.cat([torch.stack(earlier), losses], 1)


def _num_right(
    together: SideBySide, moment: Moment, train: Split, orders: Sequence[Tensor]
) -> list[int]:
    """Right answers of each member over the epoch, by the weights that each batch was trained on."""
    answers = torch.cat(moment.predictions, 1)
    if moment.members[0].position.predictions:
        earlier = [torch.cat(member.position.predictions) for member in moment.members]
        answers = torch.cat([torch.stack(earlier).to(torch.uint8), answers], 1)
    found: list[int] = []
    for rows, order in zip(together.groups, orders, strict=True):
        in_order = train.labels.index_select(0, order.to(train.labels.device)).to(torch.uint8)
        found += answers[rows].eq(in_order).sum(1).tolist()
    return found


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
        _train_epoch(together, trial, images, None, batch_size, lambda moment: None)
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


def _notice_divergence(moment: Moment, num_new: int) -> None:
    """Mark the members of whose last losses one is not finite; they are trained on till the end of the
    epoch, since leaving would cost the others more."""
    fresh = torch.stack(moment.losses[-num_new:])
    if math.isfinite(fresh.sum().item()):
        return
    for member, losses in zip(moment.members, fresh.t().tolist(), strict=True):
        if member.diverged is None:
            member.diverged = divergence(losses, moment.epoch, moment.step)
            member.has_left = member.diverged is not None


def _generator(member: Member, device: torch.device) -> torch.Generator:
    """What its dropout draws from: as torch's own generator of the device would be if it were alone."""
    generator = torch.Generator(device)
    if member.position.dropout is None:
        return generator.manual_seed(dropout_seed(member.seed, member.position.epoch))
    generator.set_state(member.position.dropout)
    return generator
