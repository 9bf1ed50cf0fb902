"""One epoch of members side by side, from its order to its reports, and the moments between its steps.

Knows neither what is tried beforehand nor why members leave.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from digitlab.data.splits import Split
from digitlab.training.evaluation import Scores, score_logits
from digitlab.training.fused.members import Images, Member, SideBySide
from digitlab.training.loop import (
    EpochReport,
    Position,
    divergence,
    dropout_seed,
    epoch_order,
    first_losses,
    flushing_denormals,
    mean_loss,
    num_steps,
)


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


@torch.no_grad()
def train_epoch(
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
        answers = torch.cat([torch.stack(earlier).to(answers.dtype), answers], 1)
    num_right: list[int] = []
    for rows, order in zip(together.groups, orders, strict=True):
        in_order = train.labels.index_select(0, order.to(train.labels.device)).to(answers.dtype)
        num_right += answers[rows].eq(in_order).sum(1).tolist()
    return num_right


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
