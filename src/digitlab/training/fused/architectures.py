"""Which models can be trained side by side: the one place to add another."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from digitlab.data.splits import Split
from digitlab.models.cnn import ConvNet
from digitlab.models.logistic_regression import LogisticRegression
from digitlab.training.fused.convnet import FusedConvNet
from digitlab.training.fused.linear import PIXELS, ROWS, FusedLogisticRegression


class FusedModel(Protocol):
    """K models of one architecture in G groups of equal size; those of a group see the same images."""

    def logits(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """(K, 10, B), in training mode, of images (G, B, 1, 28, 28).

        generators: one of each member, that its dropout draws from as it would alone.
        """

    def backpropagate(self, by_class: Tensor, into: Sequence[Tensor]) -> None:
        """Write the parameters' gradients `into` (K, ...), from those (K, 10, B) of the last logits."""

    def predict(self, split: Split) -> list[Tensor]:
        """Logits (N, 10) of each member of one group, in evaluation mode, on the CPU."""


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """What a kind of model wants of those who bring many together.

    spare: elements behind the last member's, in each stacked parameter. max_groups: that see different
    images, at once; more would leave a core's cache.
    """

    spare: int
    max_groups: int


LAYOUTS: dict[type[nn.Module], Layout] = {
    LogisticRegression: Layout(spare=ROWS * PIXELS, max_groups=16),
    ConvNet: Layout(spare=0, max_groups=1),
}


def layout_of(models: Sequence[nn.Module]) -> Layout | None:
    """None: these models have no form for many at once."""
    kinds = {type(model) for model in models}
    return LAYOUTS.get(kinds.pop()) if len(kinds) == 1 else None


def fuse(models: Sequence[nn.Module], parameters: Sequence[Tensor], num_groups: int) -> FusedModel:
    """Models of one kind side by side.

    parameters: theirs, stacked (K, ...), as their layout wants them.
    """
    if isinstance(models[0], LogisticRegression):
        return FusedLogisticRegression(parameters, num_groups)
    networks = [model for model in models if isinstance(model, ConvNet)]
    return FusedConvNet(networks, parameters)
