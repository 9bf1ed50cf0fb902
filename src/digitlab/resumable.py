"""A training that can be cut short at any moment: fit() with checkpoints, early stopping and selection.

Where it goes on from a checkpoint it ends with the same bits as if it had never stopped.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from digitlab.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from digitlab.config import CheckpointConfig, Config
from digitlab.data import Dataset
from digitlab.interrupts import Interrupts
from digitlab.models import build_model
from digitlab.optimizers import Optimizer, build_optimizer
from digitlab.schedules import build_schedule
from digitlab.selection import Patience, best_report
from digitlab.serving import weights_digest
from digitlab.training import EpochReport, Position, fit, num_steps, paused


class Resumable:
    """One training. Iterate over `reports()`; afterwards `model` has the chosen weights.

    history: of all epochs so far, those before an interruption too. initial_weights: their digest.
    start, earlier: where it goes on, and the reports before. Who trains model and optimizer by other
    means gives each report to `absorb`, the earlier ones too, and in the end calls `settle`.
    """

    def __init__(self, config: Config, dataset: Dataset, device: torch.device) -> None:
        self.config, self.device = config, device
        self.history: list[EpochReport] = []
        self.model: nn.Module = build_model(config.model, config.seed)
        self.initial_weights = weights_digest(self.model.state_dict())
        self.model.to(device)
        self.steps_per_epoch = num_steps(len(dataset.train), config.batch_size)
        self._dataset = dataset
        self.optimizer: Optimizer = build_optimizer(config.optimizer, list(self.model.parameters()))
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
        """Before it goes on."""
        return self.steps_at(self.start)

    def steps_at(self, position: Position) -> int:
        return (position.epoch - 1) * self.steps_per_epoch + position.step

    def reports(self, before_step: Callable[[Position], None]) -> Iterator[EpochReport]:
        """Those of the epochs before an interruption, too."""
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
        untold = self.earlier[len(self.history) :]
        for report in itertools.chain(untold, fitted):
            is_over = self.absorb(report)
            yield report
            if is_over:
                break
        self.settle()

    def absorb(self, report: EpochReport) -> bool:
        """Take note of the next epoch; whether it was the last one."""
        self.history.append(report)
        if self.config.checkpoint.weights == "best" and report.epoch > len(self.earlier):
            self._keep_if_best(report)
        return self._patience.is_over(report) or report.epoch == self.config.epochs

    def settle(self) -> None:
        """Let the model have the chosen weights."""
        if self._best:
            self.model.load_state_dict(self._best)

    @property
    def chosen_epoch(self) -> int:
        """Whose weights are tested, from 1."""
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


class Checkpoints:
    """Decides when a training is saved; at once when it is asked to stop."""

    def __init__(
        self,
        folder: Path,
        training: Resumable,
        *,
        identity: dict[str, str],
        interrupts: Interrupts,
    ) -> None:
        self._folder, self._training, self._identity = folder, training, identity
        self._interrupts = interrupts
        self._config: CheckpointConfig = training.config.checkpoint
        self._saved_at = time.monotonic()
        self._rests_until = 0.0
        self._saved_steps = 0  # how many steps the checkpoint on the disk has done

    def restore(self, say: Callable[[str], None], *, force: bool = False) -> bool:
        """Go on from the folder's checkpoint; False if there is none that fits (`say` hears why).

        force: even if configuration, data, source or arithmetic are others.
        """
        state = load_checkpoint(self._folder, say)
        if state is None:
            return False
        differing = [k for k, v in self._identity.items() if state.identity.get(k) != v]
        if differing and not force:
            say(f"the checkpoint is of another {' and '.join(differing)}: training begins anew")
            return False
        self._training.restore(state)
        self._saved_steps = self._training.steps_done
        return True

    def before_step(self, position: Position) -> None:
        """Save if it is time, and if this is the last moment to do so."""
        is_inside = position.step > 0  # at the end of an epoch `after_epoch` has seen to it
        if (is_inside and self.is_due(position)) or self._is_asked_to_stop:
            self.save(paused(position, self._training.device) if is_inside else position)
        self._interrupts.check()

    def after_epoch(self, report: EpochReport) -> None:
        following = Position(epoch=report.epoch + 1)
        if self.is_due(following) or self._is_asked_to_stop:
            self.save(following)

    @property
    def _is_asked_to_stop(self) -> bool:
        return self._interrupts.signal_number is not None

    def rest(self, seconds: float) -> None:
        """Save nothing for so long, unless told to by number of steps or at the end of every epoch."""
        self._rests_until = time.monotonic() + seconds

    def is_due(self, position: Position) -> bool:
        """Whether it is time to save, at a position whose epoch and step are right."""
        every_steps, every_seconds = self._config.every_steps, self._config.every_seconds
        if every_steps is not None and self._training.steps_at(position) % every_steps == 0:
            return True
        if every_seconds == 0:
            return position.step == 0
        return time.monotonic() >= max(self._saved_at + every_seconds, self._rests_until)

    def save(self, position: Position) -> None:
        """At a position as `Resumable.state` wants it.

        Unless the disk has that position, or a later one: an earlier epoch is only told again."""
        steps = self._training.steps_at(position)
        if steps > self._saved_steps:
            save_checkpoint(self._folder, self._training.state(position, self._identity))
            self._saved_at, self._saved_steps = time.monotonic(), steps
