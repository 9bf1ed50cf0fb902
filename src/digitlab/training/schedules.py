"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to resume."""

import math
from collections.abc import Callable
from typing import assert_never

from digitlab.config.components import lookup
from digitlab.config.kinds import OwnConfig
from digitlab.config.schema import (
    ConstantConfig,
    CosineConfig,
    InverseSqrtConfig,
    OneCycleConfig,
    SchedulerConfig,
    StepConfig,
)

Schedule = Callable[[int], float]
BuiltInConfig = ConstantConfig | CosineConfig | StepConfig | OneCycleConfig | InverseSqrtConfig


def build_schedule(
    config: SchedulerConfig, learning_rate: float, *, steps_per_epoch: int, epochs: int
) -> Schedule:
    """The learning rate of each step, counted from 0 over the whole training.

    In the first `warmup_fraction` of all steps it rises to the peak `learning_rate`: linearly (Goyal
    et al. 2017), for one_cycle along a half cosine (Smith 2018). A scheduler that a user brings decides
    all steps.
    """
    num_steps = steps_per_epoch * epochs
    if isinstance(config, OwnConfig):
        factor = lookup.build("scheduler", config, num_steps, steps_per_epoch)
        return lambda step: learning_rate * float(factor(step))
    num_warmup = round(config.warmup_fraction * num_steps)
    if isinstance(config, ConstantConfig) and not num_warmup:
        return lambda step: learning_rate
    after_warmup = _after_warmup(config, learning_rate, num_warmup, num_steps, steps_per_epoch)

    def schedule(step: int) -> float:
        if step >= num_warmup:
            return after_warmup(step)
        if isinstance(config, OneCycleConfig):
            return _cosine(learning_rate / config.initial_divisor, learning_rate, step / num_warmup)
        return learning_rate * (step + 1) / (num_warmup + 1)

    return schedule


def _after_warmup(
    config: BuiltInConfig, learning_rate: float, num_warmup: int, num_steps: int, steps_per_epoch: int
) -> Schedule:
    num_after = max(num_steps - num_warmup - 1, 1)

    def after_warmup(step: int) -> float:
        progress = (step - num_warmup) / num_after  # [0, 1]
        match config:
            case ConstantConfig():
                return learning_rate
            case CosineConfig():
                return _cosine(learning_rate, learning_rate * config.final_fraction, progress)
            case StepConfig():
                return learning_rate * config.factor ** (step // steps_per_epoch // config.every_epochs)
            case OneCycleConfig():
                last = learning_rate / config.initial_divisor / config.final_divisor
                return _cosine(learning_rate, last, progress)
            case InverseSqrtConfig():  # Zhai et al. 2022, "Scaling Vision Transformers"
                timescale = config.timescale_epochs * steps_per_epoch
                return learning_rate / math.sqrt(1 + (step - num_warmup) / timescale)
            case _:
                assert_never(config)

    return after_warmup


def _cosine(first: float, last: float, progress: float) -> float:
    """Half a cosine from `first` (progress 0) to `last` (progress 1)."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
