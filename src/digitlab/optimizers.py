"""The optimizers, in place on lists of tensors, with the learning rate given at each step.

Bit for bit torch.optim's single-tensor loops, which the tests compare them with. Not torch.optim
itself, since constructing its first optimizer imports torch._dynamo: 2 to 4 s before the first step.
"""

import math
from collections.abc import Sequence
from typing import Protocol, assert_never

import torch
from torch import Tensor

from digitlab.config import AdamConfig, OptimizerConfig, RMSpropConfig, SGDConfig


class Optimizer(Protocol):
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        """Move the parameters in place; may overwrite `gradients`, one for each parameter."""


class SGD:
    """Stochastic gradient descent with (Nesterov's) momentum and an L2 penalty."""

    def __init__(self, parameters: Sequence[Tensor], config: SGDConfig) -> None:
        self.parameters, self.config = list(parameters), config
        self.velocities: list[Tensor] = []

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        config = self.config
        first_step = not self.velocities
        for position, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            if config.weight_decay:
                gradient.add_(parameter, alpha=config.weight_decay)
            direction = gradient
            if config.momentum:
                if first_step:
                    self.velocities.append(gradient.clone())
                else:
                    self.velocities[position].mul_(config.momentum).add_(gradient)
                velocity = self.velocities[position]
                direction = (
                    gradient.add_(velocity, alpha=config.momentum) if config.nesterov else velocity
                )
            parameter.add_(direction, alpha=-learning_rate)


class Adam:
    """Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019): by `config.name`."""

    def __init__(self, parameters: Sequence[Tensor], config: AdamConfig) -> None:
        self.parameters, self.config = list(parameters), config
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        config = self.config
        decoupled = config.name == "adamw"
        self.steps += 1
        step_size = learning_rate / (1 - config.beta_1**self.steps)
        root_correction = math.sqrt(1 - config.beta_2**self.steps)
        for parameter, gradient, mean, square in zip(
            self.parameters, gradients, self.means, self.squares, strict=True
        ):
            if config.weight_decay and decoupled:
                parameter.mul_(1 - learning_rate * config.weight_decay)
            elif config.weight_decay:
                gradient.add_(parameter, alpha=config.weight_decay)
            mean.lerp_(gradient, 1 - config.beta_1)
            square.mul_(config.beta_2).addcmul_(gradient, gradient, value=1 - config.beta_2)
            denominator = square.sqrt().div_(root_correction).add_(config.epsilon)
            parameter.addcdiv_(mean, denominator, value=-step_size)


class RMSprop:
    """RMSprop (Tieleman and Hinton 2012), not centred, with momentum."""

    def __init__(self, parameters: Sequence[Tensor], config: RMSpropConfig) -> None:
        self.parameters, self.config = list(parameters), config
        self.squares = [torch.zeros_like(p) for p in parameters]
        self.velocities = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        config = self.config
        for parameter, gradient, square, velocity in zip(
            self.parameters, gradients, self.squares, self.velocities, strict=True
        ):
            if config.weight_decay:
                gradient.add_(parameter, alpha=config.weight_decay)
            square.mul_(config.alpha).addcmul_(gradient, gradient, value=1 - config.alpha)
            denominator = square.sqrt().add_(config.epsilon)
            if config.momentum:
                velocity.mul_(config.momentum).addcdiv_(gradient, denominator)
                parameter.add_(velocity, alpha=-learning_rate)
            else:
                parameter.addcdiv_(gradient, denominator, value=-learning_rate)


def build_optimizer(config: OptimizerConfig, parameters: Sequence[Tensor]) -> Optimizer:
    match config:
        case SGDConfig():
            return SGD(parameters, config)
        case AdamConfig():
            return Adam(parameters, config)
        case RMSpropConfig():
            return RMSprop(parameters, config)
        case _:
            assert_never(config)
