"""The training loop of many members at once, in the manner of fit(): a generator of epoch reports.

Each member ends with the bits that it has alone, whatever the others are; so members may come from
checkpoints of other groups, leave after any epoch, or diverge, without effect on the others.
"""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from digitlab.data.splits import Split
from digitlab.models.predict import predict
from digitlab.training.fused.architectures import fused_model
from digitlab.training.fused.epochs import Moment, train_epoch
from digitlab.training.fused.members import Images, Member, NotFusable, SideBySide
from digitlab.training.fused.probe import NOT_AT_ALL, judge
from digitlab.training.fused.stacking import copied_parameters
from digitlab.training.loop import EpochReport

LEAST_GAIN = 1.05  # below it is what a measurement may be wrong by


def fit_many(
    members: Sequence[Member],
    train: Split,
    validation: Split | None,
    *,
    batch_size: int,
    epochs: int,
    must_gain: bool = False,
    before_step: Callable[[Moment], None] = lambda moment: None,
) -> Iterator[list[tuple[Member, EpochReport]]]:
    """Train all members in place, yielding after each epoch a report of each that is still there.

    Args:
        must_gain: whether they have to be faster side by side than one by one, as measured here.
        before_step: called before every step, when all weights are whole; whatever it raises ends the
            training there.

    Raises:
        NotFusable: before anything has been changed, or between two epochs when some have left.
    """
    together: SideBySide | None = None
    while (there := [m for m in members if not m.has_left]) and there[0].position.epoch <= epochs:
        if together is None or len(there) < len(together.members):
            wants_gain = must_gain and len(there) > 1
            way = _exact_way(there, train, batch_size, must_gain=wants_gain)
            together = SideBySide(there, way)
            images = Images(train, len(together.groups))
        yield train_epoch(together, train, images, validation, batch_size, before_step)


def predict_many(models: Sequence[nn.Module], split: Split) -> list[Tensor]:
    """Logits (N, C) of each on the CPU, in evaluation mode: the bits that each has alone."""
    fused = fused_model(models) if len(models) > 1 else None
    if fused is None:
        return [predict(model, split) for model in models]
    parameters = copied_parameters(models, spare=fused.spare(models[0]))
    return fused(models, parameters, 1).predict(split)


def _exact_way(members: Sequence[Member], train: Split, batch_size: int, *, must_gain: bool) -> str:
    answer = judge(members, train, batch_size)
    if answer.way == NOT_AT_ALL:
        raise NotFusable(
            f"this machine rounds {len(members)} of them otherwise side by side than alone; "
            f"one by one takes {answer.gain:.2f} times as long"
        )
    if must_gain and answer.gain < LEAST_GAIN:
        raise NotFusable(
            f"{len(members)} of them side by side gain nothing here: "
            f"{answer.gain:.2f} times the speed of one by one, as measured"
        )
    return answer.way
