"""How a configuration becomes a model, with initial weights drawn from a seed."""

from typing import Protocol, assert_never, runtime_checkable

import torch
from torch import Tensor, nn

from digitlab.config.kinds import OwnConfig
from digitlab.config.schema import CNNConfig, LogisticRegressionConfig, ModelConfig
from digitlab.models.cnn import ConvNet
from digitlab.models.logistic_regression import LogisticRegression
from digitlab.models.own_model import own_model
from digitlab.randomness import derive_seed


@runtime_checkable
class ClosedForm(Protocol):
    """A model that knows its own gradients; the others leave them to autograd, at 25 us a step."""

    def backpropagate(self, images: Tensor, logit_gradients: Tensor) -> list[Tensor]:
        """The loss's gradients by every parameter, in their order, from those by the logits (B, C)."""


def build_model(
    config: ModelConfig, seed: int, *, image_shape: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """The model with its initial weights, on the CPU; the same `seed` gives the same weights.

    image_shape: channels, height, width.
    Draws from torch's global CPU generator, which it leaves seeded.
    """
    # Not torch.manual_seed: its first call imports torch._dynamo (2 s and more).
    torch.default_generator.manual_seed(derive_seed(seed, "initial weights"))
    match config:
        case LogisticRegressionConfig():
            return LogisticRegression(image_shape, num_classes)
        case CNNConfig():
            return ConvNet(config, image_shape, num_classes)
        case OwnConfig():
            return own_model(config, image_shape=image_shape, num_classes=num_classes)
        case _:
            assert_never(config)


def weight_shapes(
    config: ModelConfig, *, image_shape: tuple[int, int, int], num_classes: int
) -> dict[str, torch.Size]:
    """By name. Takes no memory, whatever size the configuration asks for."""
    with torch.device("meta"):
        model = build_model(config, 0, image_shape=image_shape, num_classes=num_classes)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
