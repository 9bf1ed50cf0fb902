"""Schedules against torch.optim.lr_scheduler, step by step."""

from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler

from digitlab.config.schema import (
    ConstantConfig,
    CosineConfig,
    InverseSqrtConfig,
    OneCycleConfig,
    SchedulerConfig,
    StepConfig,
)
from digitlab.training.schedules import build_schedule

STEPS_PER_EPOCH, EPOCHS, PEAK = 7, 6, 0.5
NUM_STEPS = STEPS_PER_EPOCH * EPOCHS


def reference(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = make(optimizer)
    rates = []
    for _ in range(NUM_STEPS):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def ours(config: SchedulerConfig) -> list[float]:
    schedule = build_schedule(config, PEAK, steps_per_epoch=STEPS_PER_EPOCH, epochs=EPOCHS)
    return [schedule(step) for step in range(NUM_STEPS)]


def test_cosine() -> None:
    config = CosineConfig(name="cosine", warmup_fraction=0, final_fraction=0.1)
    expected = reference(
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=NUM_STEPS - 1, eta_min=0.1 * PEAK)
    )
    assert ours(config) == pytest.approx(expected)


def test_inverse_sqrt() -> None:
    config = InverseSqrtConfig(name="inverse_sqrt", warmup_fraction=0, timescale_epochs=2)
    expected = reference(
        lambda o: lr_scheduler.LambdaLR(o, lambda step: (1 + step / (2 * STEPS_PER_EPOCH)) ** -0.5)
    )
    assert ours(config) == pytest.approx(expected)


def test_step() -> None:
    config = StepConfig(name="step", warmup_fraction=0, every_epochs=2, factor=0.3)
    expected = reference(lambda o: lr_scheduler.StepLR(o, 2 * STEPS_PER_EPOCH, gamma=0.3))
    assert ours(config) == pytest.approx(expected)


def test_one_cycle() -> None:
    """torch reaches the peak in step pct_start * total_steps - 1, counted from 0: here 12."""
    config = OneCycleConfig(
        name="one_cycle", warmup_fraction=12 / NUM_STEPS, initial_divisor=25, final_divisor=1e4
    )
    expected = reference(
        lambda o: lr_scheduler.OneCycleLR(
            o, PEAK, total_steps=NUM_STEPS, pct_start=13 / NUM_STEPS, div_factor=25
        )
    )
    assert ours(config) == pytest.approx(expected)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5])
def test_warm_up_rises_linearly_to_the_peak(fraction: float) -> None:
    rates = ours(ConstantConfig(name="constant", warmup_fraction=fraction))
    num_warmup = round(fraction * NUM_STEPS)
    assert rates[num_warmup:] == [PEAK] * (NUM_STEPS - num_warmup)
    rising = [PEAK * (step + 1) / (num_warmup + 1) for step in range(num_warmup)]
    assert rates[:num_warmup] == pytest.approx(rising)


@pytest.mark.parametrize(("steps_per_epoch", "epochs"), [(1, 1), (1, 2), (2, 1)])
def test_the_shortest_trainings_have_a_learning_rate(steps_per_epoch: int, epochs: int) -> None:
    for config in (
        CosineConfig(name="cosine", warmup_fraction=0.5, final_fraction=0),
        OneCycleConfig(name="one_cycle", warmup_fraction=0.9, initial_divisor=25, final_divisor=10),
    ):
        schedule = build_schedule(config, PEAK, steps_per_epoch=steps_per_epoch, epochs=epochs)
        assert all(0 <= schedule(step) <= PEAK for step in range(steps_per_epoch * epochs))
