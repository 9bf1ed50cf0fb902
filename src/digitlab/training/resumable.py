"""A training that can be cut short at any moment: fit() with early stopping, selection, and its state.

Where it goes on from a state it ends with the same bits as if it had never stopped.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from digitlab.config.schema import Config
from digitlab.data.splits import Dataset
from digitlab.models.build import build_model
from digitlab.models.saved import weights_digest
from digitlab.training.gradients import trained
from digitlab.training.loop import EpochReport, Position, fit, num_steps
from digitlab.training.optimizers import build_optimizer
from digitlab.training.own_optimizers import Optimizer
from digitlab.training.schedules import build_schedule
from digitlab.training.selection import Patience, best_report


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainingState:
    """Everything that the rest of a training depends on; tensors may share the training's memory.

    identity: what must be equal for the same bits: digests of configuration, data, source, arithmetic.
    history: of the finished epochs. best: the weights of the best epoch so far, if they are kept.
    """

    identity: dict[str, str]
    position: Position
    history: list[EpochReport]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int


class Resumable:
    """One training. Iterate over `reports()`; afterwards `model` has the chosen weights.

    history: of all epochs so far, those before an interruption too. initial_weights: their digest.
    start, earlier: where it goes on, and the reports before. A caller that trains model and optimizer
    by other means gives each report to `absorb`, the earlier ones too, and in the end calls `settle`.
    """

    def __init__(self, config: Config, dataset: Dataset, device: torch.device) -> None:
        self.config, self.device = config, device
        self.history: list[EpochReport] = []
        self.model: nn.Module = build_model(
            config.model,
            config.seed,
            image_shape=dataset.image_shape,
            num_classes=dataset.num_classes,
        )
        self.initial_weights = weights_digest(self.model.state_dict())
        self.model.to(device)
        self.steps_per_epoch = num_steps(len(dataset.train), config.batch_size)
        self._dataset = dataset
        self.optimizer: Optimizer = build_optimizer(config.optimizer, trained(self.model))
        self.schedule = build_schedule(
            config.scheduler,
            config.optimizer.learning_rate,
            steps_per_epoch=self.steps_per_epoch,
            epochs=config.epochs,
        )
        self.start = Position(epoch=1)
        self.earlier: list[EpochReport] = []
        self._patience = Patience(config.early_stopping)
        self._best: dict[str, torch.Tensor] = {}
        self._best_epoch = 0

    def restore(self, state: TrainingState) -> None:
        """Go on where a training of the same configuration was."""
        self.model.load_state_dict(state.model)
        self.optimizer.restore(state.optimizer)
        self.earlier, self._best, self._best_epoch = state.history, state.best, state.best_epoch
        self.start = dataclasses.replace(
            state.position,
            losses=[loss.to(self.device) for loss in state.position.losses],
            predictions=[batch.to(self.device) for batch in state.position.predictions],
        )

    @property
    def steps_done(self) -> int:
        """In earlier processes."""
        return self.steps_at(self.start)

    def steps_at(self, position: Position) -> int:
        return (position.epoch - 1) * self.steps_per_epoch + position.step

    def reports(self, before_step: Callable[[Position], None]) -> Iterator[EpochReport]:
        """Of all epochs; first of those before an interruption."""
        dataset, config = self._dataset, self.config
        fitted = fit(
            self.model,
            dataset.train.to(self.device),
            dataset.validation.to(self.device) if dataset.validation else None,
            optimizer=self.optimizer,
            schedule=self.schedule,
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
            order_seed=config.data.order_seed,
            start=self.start,
            before_step=before_step,
        )
        earlier = self.earlier[len(self.history) :]
        for report in itertools.chain(earlier, fitted):
            is_over = self.absorb(report)
            yield report
            if is_over:
                break
        self.settle()

    def absorb(self, report: EpochReport) -> bool:
        """Add the next epoch; returns whether it was the last one."""
        self.history.append(report)
        if self.config.checkpoint.weights == "best" and report.epoch > len(self.earlier):
            self._keep_if_best(report)
        return self._patience.is_over(report) or report.epoch == self.config.epochs

    def settle(self) -> None:
        """Give the model the chosen weights."""
        if self._best:
            self.model.load_state_dict(self._best)

    @property
    def chosen_epoch(self) -> int:
        """The epoch, from 1, whose weights are tested."""
        return self._best_epoch if self._best else self.history[-1].epoch

    def state(self, position: Position, identity: dict[str, str]) -> TrainingState:
        """At a position whose `seconds` and `dropout` are those of the moment (see `paused`)."""
        return TrainingState(
            identity=identity,
            position=position,
            history=list(self.history),
            model=self.model.state_dict(),
            optimizer=self.optimizer.state(),
            best=self._best,
            best_epoch=self._best_epoch,
        )

    def _keep_if_best(self, report: EpochReport) -> None:
        if best_report(self.history, self.config.checkpoint.metric) is report:
            self._best = {k: v.clone() for k, v in self.model.state_dict().items()}
            self._best_epoch = report.epoch
