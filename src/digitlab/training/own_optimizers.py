"""What an optimizer must do, and how one that a user brings is made to do it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from digitlab.config.components import lookup
from digitlab.config.schema import OwnOptimizerConfig
from digitlab.errors import UsageError

NUMBER = ":number"  # ends the name of a state that is a Python number


@runtime_checkable
class Optimizer(Protocol):
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        """Move the parameters in place; may overwrite `gradients`, one for each parameter."""

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, apart from the parameters; shares memory."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that an optimizer of the same configuration gave."""


def own_optimizer(config: OwnOptimizerConfig, parameters: Sequence[Tensor]) -> Optimizer:
    """The component of that name, on these parameters.

    Raises:
        UsageError: it gives something else than an optimizer.
    """
    made = lookup.build("optimizer", config, list(parameters))
    if isinstance(made, torch.optim.Optimizer):
        return TorchOptimizer(made, parameters)
    if isinstance(made, Optimizer):
        return made
    raise UsageError(
        f"{lookup.registered('optimizer')[config.name]} must give a torch.optim.Optimizer, "
        f"or an object with step, state and restore, got {type(made).__name__}"
    )


class TorchOptimizer:
    """One of torch.optim's kind; its learning rate is set before each step."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> None:
        self._optimizer, self._parameters = optimizer, list(parameters)

    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Of each parameter, by its place and the names of the optimizer: `{"0.exp_avg": ...}`."""
        flat: dict[str, Tensor] = {}
        for place, values in self._optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if isinstance(value, Tensor):
                    flat[f"{place}.{name}"] = value
                elif isinstance(value, int | float):
                    flat[f"{place}.{name}{NUMBER}"] = torch.tensor(value, dtype=_dtype(value))
                elif value is not None:
                    raise UsageError(
                        f"{type(self._optimizer).__name__} keeps {name} as a {type(value).__name__}: "
                        "only tensors and numbers can be saved to resume a training"
                    )
        return flat

    def restore(self, state: Mapping[str, Tensor]) -> None:
        by_place: dict[int, dict[str, Any]] = {}
        for key, value in state.items():
            place, _, name = key.partition(".")
            is_number = name.endswith(NUMBER)
            by_place.setdefault(int(place), {})[name.removesuffix(NUMBER)] = (
                value.item() if is_number else value
            )
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": by_place, "param_groups": groups})


def _dtype(value: float) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.int64 if isinstance(value, int) else torch.float64
