"""A project's own components, as files of the kind that a user writes."""

from pathlib import Path

MODELS = '''
"""Models of this project."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

import digitlab
from layers import activation


@digitlab.model("mlp")
class MLP(nn.Module):
    """One hidden layer."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        hidden_units: Annotated[int, Field(ge=1, le=4096, description="width of the hidden one")] = 32,
        kind: Annotated[Literal["relu", "tanh"], Field(description="between the layers")] = "relu",
        dropout: Annotated[float, Field(ge=0, lt=1, description="of hidden units")] = 0.1,
    ) -> None:
        pixels = math.prod(image_shape)
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, hidden_units),
            nn.BatchNorm1d(hidden_units),
            activation(kind),
            nn.Dropout(dropout),
            nn.Linear(hidden_units, num_classes),
        )
        self.unused = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@digitlab.optimizer("sign")
class SignSGD(torch.optim.Optimizer):
    """Steps of one length, by the sign of averaged gradients."""

    def __init__(
        self,
        parameters,
        *,
        learning_rate: Annotated[float, Field(gt=0, description="length of a step")] = 0.001,
        beta: Annotated[float, Field(ge=0, lt=1, description="averaging of the gradient")] = 0.9,
    ) -> None:
        super().__init__(parameters, {"lr": learning_rate, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                mean = state.setdefault("mean", torch.zeros_like(parameter))
                state["steps"] = state.get("steps", 0) + 1
                mean.lerp_(parameter.grad, 1 - group["beta"])
                parameter.sub_(mean.sign(), alpha=group["lr"])


@digitlab.scheduler("polynomial")
def polynomial(
    num_steps: int,
    steps_per_epoch: int,
    *,
    power: Annotated[float, Field(gt=0, description="1: in a straight line to zero")] = 1.0,
):
    return lambda step: (1 - step / num_steps) ** power
'''
LAYERS = """
from torch import nn


def activation(kind):
    return {"relu": nn.ReLU, "tanh": nn.Tanh}[kind]()
"""


def write_project(home: Path, models: str = MODELS) -> None:
    """Raises FileExistsError: this process has perhaps asked for its components already."""
    for name, text in {"models.py": models, "layers.py": LAYERS}.items():
        with (home / name).open("x") as file:
            file.write(text.lstrip())
