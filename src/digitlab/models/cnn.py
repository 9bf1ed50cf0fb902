"""The tutorial's convolutional network. Knows nothing of losses, data sets or devices."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from digitlab.config.schema import CNNConfig

KERNEL = 5  # pixels, square


class ConvNet(nn.Module):
    """The tutorial's network: two convolutions, two fully connected layers, dropout on the way.

    (B, *image_shape) float32 -> logits (B, num_classes). Where a side is under SMALLEST_UNPADDED, too
    short for two 5x5 convolutions each of which is followed by pooling, both convolutions are padded by
    PADDING zeros on every side. They are stored channels-last, which makes the training step 1.6 times
    faster on a CPU.
    """

    SMALLEST_UNPADDED = 16  # pixels: 16 -> 12 -> 6 -> 2 -> 1
    PADDING = 2

    def __init__(self, config: CNNConfig, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, *sides = image_shape
        padding = self.padding = self.PADDING if min(sides) < self.SMALLEST_UNPADDED else 0
        self.conv_1 = _convolution(channels, config.channels_1, padding)
        self.conv_2 = _convolution(config.channels_1, config.channels_2, padding)
        self.conv_dropout = nn.Dropout2d(config.conv_dropout)
        height, width = (_pooled(_pooled(side, padding), padding) for side in sides)
        self.hidden = nn.Linear(config.channels_2 * height * width, config.hidden_units)
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)
        self.output = nn.Linear(config.hidden_units, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(functional.max_pool2d(self.conv_1(images), 2))
        # A dropped channel stays dropped and a kept one is scaled, before or after the pooling: after
        # it there is a quarter as much to do.
        features = self.conv_dropout(functional.max_pool2d(self.conv_2(features), 2))
        features = functional.relu(features)
        hidden = self.hidden_dropout(functional.relu(self.hidden(features.flatten(1))))
        logits: Tensor = self.output(hidden)
        return logits


def _pooled(side: int, padding: int) -> int:
    """Pixels that a side has after a convolution and pooling."""
    return (side + 2 * padding - (KERNEL - 1)) // 2


def _convolution(channels: int, out_channels: int, padding: int) -> nn.Conv2d:
    return _channels_last(nn.Conv2d(channels, out_channels, kernel_size=KERNEL, padding=padding))


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
