"""The models: images in, logits out. Know nothing of losses, data sets or devices."""

from typing import Protocol, assert_never, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from digitlab.config import CNNConfig, LogisticRegressionConfig, ModelConfig
from digitlab.randomness import derive_seed


@runtime_checkable
class ClosedForm(Protocol):
    """A model that knows its own gradients; the others leave them to autograd, at 25 us a step."""

    def backpropagate(self, images: Tensor, logit_gradients: Tensor) -> list[Tensor]:
        """The loss's gradients by every parameter, in their order, from those by the logits (B, 10)."""


class LogisticRegression(nn.Module):
    """Multinomial logistic regression: one linear layer on the pixels.

    (B, 1, 28, 28) float32 -> logits (B, 10). Multiplied with six rows of zeros below the ten: libraries
    have kernels of their own for so few, while from 16 on the bits of a row do not depend on how many
    others there are, so that many models side by side agree with each alone (see fused/).
    """

    PADDED_ROWS = 16

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)
        padded = torch.zeros(self.PADDED_ROWS, 28 * 28)
        padded[:10] = self.linear.weight.detach()
        self.linear.weight = nn.Parameter(padded[:10])

    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        # The bias apart: a product that starts from it may add it first or last, by its width.
        return images.flatten(1).mm(self._padded(weight).t()).narrow(1, 0, 10) + bias

    def _padded(self, weight: Tensor) -> Tensor:
        """(16, 784): with what stands behind the weights, or a copy if they have moved."""
        rows, pixels = self.PADDED_ROWS, weight.shape[1]
        end = weight.storage_offset() + rows * pixels
        if weight.untyped_storage().nbytes() >= end * weight.element_size():
            return weight.as_strided((rows, pixels), (pixels, 1))
        return functional.pad(weight, (0, 0, 0, rows - len(weight)))

    def backpropagate(self, images: Tensor, logit_gradients: Tensor) -> list[Tensor]:
        by_class = logit_gradients.t()
        return [by_class.mm(images.flatten(1)), by_class.sum(1)]


class ConvNet(nn.Module):
    """The tutorial's network: two convolutions, two fully connected layers, dropout on the way.

    (B, 1, 28, 28) float32 -> logits (B, 10). Its convolutions are stored channels-last, which makes
    the training step 1.6 times faster on a CPU.
    """

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        self.conv_1 = _channels_last(nn.Conv2d(1, config.channels_1, kernel_size=5))
        self.conv_2 = _channels_last(nn.Conv2d(config.channels_1, config.channels_2, kernel_size=5))
        self.conv_dropout = nn.Dropout2d(config.conv_dropout)
        self.hidden = nn.Linear(config.channels_2 * 4 * 4, config.hidden_units)
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)
        self.output = nn.Linear(config.hidden_units, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(functional.max_pool2d(self.conv_1(images), 2))
        # A dropped channel stays dropped and a kept one is scaled, before or after the pooling: after
        # it there is a quarter as much to do.
        features = self.conv_dropout(functional.max_pool2d(self.conv_2(features), 2))
        features = functional.relu(features)
        hidden = self.hidden_dropout(functional.relu(self.hidden(features.flatten(1))))
        logits: Tensor = self.output(hidden)
        return logits


def build_model(config: ModelConfig, seed: int) -> nn.Module:
    """The model with its initial weights, on the CPU; the same `seed` gives the same weights.

    Draws from torch's global CPU generator, which it leaves seeded.
    """
    # Not torch.manual_seed: its first call imports torch._dynamo (2 s and more).
    torch.default_generator.manual_seed(derive_seed(seed, "initial weights"))
    match config:
        case LogisticRegressionConfig():
            return LogisticRegression()
        case CNNConfig():
            return ConvNet(config)
        case _:
            assert_never(config)


def weight_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """By name. Takes no memory, whatever size the configuration asks for."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build_model(config, 0).state_dict().items()}


def _channels_last(conv: nn.Conv2d) -> nn.Conv2d:
    """Lay the weight out as [out, height, width, in] in memory, values and shape unchanged.

    `.to(memory_format=torch.channels_last)` does nothing for one input channel, whose layout is
    ambiguous to torch; the strides decide which kernel runs.
    """
    out_channels, in_channels, height, width = conv.weight.shape
    storage = torch.empty(out_channels, height, width, in_channels)
    weight = storage.permute(0, 3, 1, 2).copy_(conv.weight.detach())
    conv.weight = nn.Parameter(weight)
    return conv
