"""Each optimizer against torch.optim's single-tensor loop: equal to the bit after many steps."""

import numpy as np
import pytest
import torch

from digitlab.config.schema import AdagradConfig, AdamConfig, OptimizerConfig, RMSpropConfig, SGDConfig
from digitlab.training.optimizers import build_optimizer, square_root

ADAM = {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-8}
RMSPROP = {"learning_rate": 0.01, "alpha": 0.95, "epsilon": 1e-8}


def sgd(momentum: float, nesterov: bool, weight_decay: float) -> OptimizerConfig:
    return SGDConfig(
        name="sgd",
        learning_rate=0.1,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
    )


CASES = [
    *(
        sgd(m, n, w)
        for m, n, w in [(0, False, 0), (0, False, 0.1), (0.9, False, 0.1), (0.9, True, 0.1)]
    ),
    *(AdamConfig(name=n, weight_decay=w, **ADAM) for n in ("adam", "adamw") for w in (0.0, 0.1)),  # type: ignore[arg-type]
    *(
        RMSpropConfig(name="rmsprop", momentum=m, weight_decay=w, **RMSPROP)
        for m in (0.0, 0.9)
        for w in (0.0, 0.1)
    ),
    *(
        AdagradConfig(
            name="adagrad", learning_rate=0.1, initial_accumulator=a, epsilon=1e-10, weight_decay=w
        )
        for a, w in [(0.0, 0.0), (0.1, 0.1)]
    ),
]


def theirs(config: OptimizerConfig, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    common = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "foreach": False}
    match config:
        case SGDConfig():
            return torch.optim.SGD(
                parameters, momentum=config.momentum, nesterov=config.nesterov, **common
            )
        case AdamConfig():
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
            return kind(parameters, betas=(config.beta_1, config.beta_2), eps=config.epsilon, **common)
        case RMSpropConfig():
            return torch.optim.RMSprop(
                parameters,
                alpha=config.alpha,
                eps=config.epsilon,
                momentum=config.momentum,
                **common,
            )
        case AdagradConfig():
            return torch.optim.Adagrad(
                parameters,
                initial_accumulator_value=config.initial_accumulator,
                eps=config.epsilon,
                **common,
            )


@pytest.mark.parametrize("config", CASES, ids=repr)
def test_equal_to_torch_optim_bit_for_bit(config: OptimizerConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((10, 784), (10,))]
    ours = [p.clone() for p in start]
    parameters = [p.clone().requires_grad_() for p in start]
    optimizer, reference = build_optimizer(config, ours), theirs(config, parameters)
    for step in range(30):
        learning_rate = config.learning_rate / (1 + step)
        gradients = [torch.randn(p.shape, generator=generator) for p in start]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        reference.param_groups[0]["lr"] = learning_rate
        reference.step()
        optimizer.step(gradients, learning_rate)
        for mine, other in zip(ours, parameters, strict=True):
            assert torch.equal(mine, other.detach()), f"step {step}"


def test_the_square_root_of_portable_arithmetic_is_the_nearest_float(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    squares = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) ** 5
    assert torch.equal(square_root(squares), torch.from_numpy(np.sqrt(squares.numpy())))
    denormal = torch.tensor([0.0, 1e-45, 1e-40])
    assert torch.equal(square_root(denormal), torch.from_numpy(np.sqrt(denormal.numpy())))
