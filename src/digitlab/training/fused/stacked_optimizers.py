"""The optimizers of many members in one pass: the operations of optimizers.py, in their order.

A number that differs from member to member is a tensor here where it is a Python number there. Torch
rounds both alike, if the product with it stands where torch has it (see `add_scaled_`).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from digitlab.training.fused.stacking import beside, per_member, stack
from digitlab.training.optimizers import SGD, Adagrad, Adam, RMSprop, square_root
from digitlab.training.own_optimizers import Optimizer


class StackedOptimizer(Protocol):
    def step(self, gradients: Sequence[Tensor], learning_rates: Sequence[float]) -> None:
        """Move the K members' parameters in place; may overwrite `gradients`, (K, ...) each."""


def structure(optimizer: Optimizer) -> tuple[object, ...]:
    """Optimizers of one structure go through the same operations, whatever their numbers."""
    match optimizer:
        case SGD(config=config):
            momentum = config.momentum > 0
            return "sgd", momentum, config.nesterov, config.weight_decay > 0, bool(optimizer.velocities)
        case Adam(config=config):
            return config.name, config.weight_decay > 0
        case RMSprop(config=config):
            return "rmsprop", config.momentum > 0, config.weight_decay > 0
        case Adagrad(config=config):
            return "adagrad", config.weight_decay > 0
        case _:
            return "alone", id(optimizer)


def stack_optimizers(optimizers: Sequence[Optimizer], parameters: Sequence[Tensor]) -> StackedOptimizer:
    """One for K optimizers of the same structure, whose state becomes views of the stacked state.

    parameters: (K, ...) each.
    """
    first = optimizers[0]
    if isinstance(first, SGD):
        return StackedSGD([o for o in optimizers if isinstance(o, SGD)], parameters)
    if isinstance(first, Adam):
        return StackedAdam([o for o in optimizers if isinstance(o, Adam)], parameters)
    if isinstance(first, RMSprop):
        return StackedRMSprop([o for o in optimizers if isinstance(o, RMSprop)], parameters)
    if isinstance(first, Adagrad):
        return StackedAdagrad([o for o in optimizers if isinstance(o, Adagrad)], parameters)
    return OneByOne(optimizers)


class OneByOne:
    """Each by itself, on its views."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers

    def step(self, gradients: Sequence[Tensor], learning_rates: Sequence[float]) -> None:
        for k, (optimizer, rate) in enumerate(zip(self._optimizers, learning_rates, strict=True)):
            optimizer.step([gradient[k] for gradient in gradients], rate)


class StackedSGD:
    def __init__(self, optimizers: Sequence[SGD], parameters: Sequence[Tensor]) -> None:
        self._optimizers, self._parameters = optimizers, parameters
        configs = [optimizer.config for optimizer in optimizers]
        self._nesterov, self._has_momentum = configs[0].nesterov, configs[0].momentum > 0
        self._has_decay = configs[0].weight_decay > 0
        self._momentum = _constant([config.momentum for config in configs], parameters)
        self._decay = _constant([config.weight_decay for config in configs], parameters)
        self._rates = _NegatedRates(parameters)
        self._velocities: list[Tensor] = []
        if optimizers[0].velocities:
            self._velocities = stack_state([optimizer.velocities for optimizer in optimizers])

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rates: Sequence[float]) -> None:
        is_first = self._has_momentum and not self._velocities
        rates = self._rates(learning_rates)
        for i, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            if self._has_decay:
                add_scaled_(gradient, parameter, self._decay[i])
            direction = gradient
            if self._has_momentum:
                if is_first:
                    self._velocities.append(gradient.clone())
                else:
                    self._velocities[i].mul_(self._momentum[i]).add_(gradient)
                direction = self._velocities[i]
                if self._nesterov:
                    direction = add_scaled_(gradient, direction, self._momentum[i])
            add_scaled_(parameter, direction, rates[i])
        if is_first:
            for k, optimizer in enumerate(self._optimizers):
                optimizer.velocities = [velocity[k] for velocity in self._velocities]


class StackedAdam:
    def __init__(self, optimizers: Sequence[Adam], parameters: Sequence[Tensor]) -> None:
        self._optimizers, self._parameters = optimizers, parameters
        configs = self._configs = [optimizer.config for optimizer in optimizers]
        self._decouples = configs[0].name == "adamw"
        self._has_decay = configs[0].weight_decay > 0
        self._means = stack_state([optimizer.means for optimizer in optimizers])
        self._squares = stack_state([optimizer.squares for optimizer in optimizers])
        self._decay = _constant([config.weight_decay for config in configs], parameters)
        self._fresh_1 = _constant([1 - config.beta_1 for config in configs], parameters)
        self._beta_2 = _constant([config.beta_2 for config in configs], parameters)
        self._fresh_2 = _constant([1 - config.beta_2 for config in configs], parameters)
        self._epsilon = _constant([config.epsilon for config in configs], parameters)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rates: Sequence[float]) -> None:
        sizes, roots, kept = self._coefficients(learning_rates)
        for i, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            mean, square = self._means[i], self._squares[i]
            if self._has_decay and self._decouples:
                parameter.mul_(beside(kept, parameter))
            elif self._has_decay:
                add_scaled_(gradient, parameter, self._decay[i])
            mean.lerp_(gradient, self._fresh_1[i])
            add_square_(square.mul_(self._beta_2[i]), gradient, self._fresh_2[i])
            denominator = square_root(square).div_(beside(roots, square)).add_(self._epsilon[i])
            add_quotient_(parameter, mean, denominator, beside(sizes, parameter))

    def _coefficients(self, learning_rates: Sequence[float]) -> Iterator[float | Tensor]:
        """Of this step: minus the step size, the root of the correction, what decay leaves."""
        sizes, roots, kept = [], [], []
        for optimizer, config, rate in zip(
            self._optimizers, self._configs, learning_rates, strict=True
        ):
            optimizer.steps += 1
            sizes.append(-(rate / (1 - config.beta_1**optimizer.steps)))
            roots.append(math.sqrt(1 - config.beta_2**optimizer.steps))
            kept.append(1 - rate * config.weight_decay)
        return (per_member(values, self._parameters[0]) for values in (sizes, roots, kept))


class StackedRMSprop:
    def __init__(self, optimizers: Sequence[RMSprop], parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        configs = [optimizer.config for optimizer in optimizers]
        self._has_momentum = configs[0].momentum > 0
        self._has_decay = configs[0].weight_decay > 0
        self._squares = stack_state([optimizer.squares for optimizer in optimizers])
        self._velocities = stack_state([optimizer.velocities for optimizer in optimizers])
        self._decay = _constant([config.weight_decay for config in configs], parameters)
        self._alpha = _constant([config.alpha for config in configs], parameters)
        self._fresh = _constant([1 - config.alpha for config in configs], parameters)
        self._epsilon = _constant([config.epsilon for config in configs], parameters)
        self._momentum = _constant([config.momentum for config in configs], parameters)
        self._rates = _NegatedRates(parameters)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rates: Sequence[float]) -> None:
        rates = self._rates(learning_rates)
        for i, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            square, velocity = self._squares[i], self._velocities[i]
            if self._has_decay:
                add_scaled_(gradient, parameter, self._decay[i])
            add_square_(square.mul_(self._alpha[i]), gradient, self._fresh[i])
            denominator = square_root(square).add_(self._epsilon[i])
            if self._has_momentum:
                velocity.mul_(self._momentum[i]).addcdiv_(gradient, denominator)
                add_scaled_(parameter, velocity, rates[i])
            else:
                add_quotient_(parameter, gradient, denominator, rates[i])


class StackedAdagrad:
    def __init__(self, optimizers: Sequence[Adagrad], parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        configs = [optimizer.config for optimizer in optimizers]
        self._has_decay = configs[0].weight_decay > 0
        self._sums = stack_state([optimizer.sums for optimizer in optimizers])
        self._decay = _constant([config.weight_decay for config in configs], parameters)
        self._epsilon = _constant([config.epsilon for config in configs], parameters)
        self._rates = _NegatedRates(parameters)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rates: Sequence[float]) -> None:
        rates = self._rates(learning_rates)
        for i, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            if self._has_decay:
                add_scaled_(gradient, parameter, self._decay[i])
            total = self._sums[i].addcmul_(gradient, gradient, value=1)
            denominator = square_root(total).add_(self._epsilon[i])
            add_quotient_(parameter, gradient, denominator, rates[i])


class _NegatedRates:
    """Minus the learning rate of each member, beside each parameter; made anew when one changes."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters, self._of = parameters, list[float]()
        self._made: list[float | Tensor] = []

    def __call__(self, learning_rates: Sequence[float]) -> list[float | Tensor]:
        if self._of != learning_rates:
            self._of = [*learning_rates]
            self._made = _constant([-rate for rate in learning_rates], self._parameters)
        return self._made


def _constant(values: Sequence[float], parameters: Sequence[Tensor]) -> list[float | Tensor]:
    """A number of each member, beside each parameter."""
    numbers = per_member(values, parameters[0])
    return [beside(numbers, parameter) for parameter in parameters]


def stack_state(states: Sequence[list[Tensor]]) -> list[Tensor]:
    """The tensors of K optimizers, stacked one by one; those in the K lists become views of them."""
    together = []
    for i, tensors in enumerate(zip(*states, strict=True)):
        stacked = stack(tensors)
        for state, place in zip(states, stacked, strict=True):
            state[i] = place
        together.append(stacked)
    return together


def add_scaled_(target: Tensor, other: Tensor, factor: float | Tensor) -> Tensor:
    """target += factor * other, rounded once, as torch's `add_(other, alpha=factor)` is."""
    if isinstance(factor, float):
        return target.add_(other, alpha=factor)
    return target.addcmul_(other, factor)


def add_square_(target: Tensor, other: Tensor, factor: float | Tensor) -> Tensor:
    """target += factor * other^2 as torch's `addcmul_(other, other, value=factor)` rounds it."""
    if isinstance(factor, float):
        return target.addcmul_(other, other, value=factor)
    return target.addcmul_(other * factor, other)


def add_quotient_(target: Tensor, above: Tensor, below: Tensor, factor: float | Tensor) -> Tensor:
    """target += factor * above / below as torch's `addcdiv_(above, below, value=factor)` rounds it."""
    if isinstance(factor, float):
        return target.addcdiv_(above, below, value=factor)
    return target.addcdiv_(above * factor, below)
