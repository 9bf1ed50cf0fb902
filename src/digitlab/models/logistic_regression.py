"""Multinomial logistic regression. Knows nothing of losses, data sets or devices."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from digitlab.models import products


class LogisticRegression(nn.Module):
    """Multinomial logistic regression: one linear layer on the pixels.

    (B, *image_shape) float32 -> logits (B, num_classes). Multiplied with rows of zeros below those of
    the classes, to a multiple of 16 (six below ten): libraries have kernels of their own for so few,
    while from 16 on the bits of a row do not depend on how many others there are, so that many models
    side by side agree with each alone (see training/fused/).
    """

    PADDED_ROWS = 16

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        num_pixels = math.prod(image_shape)
        self.num_classes, self.num_rows = num_classes, self.rows_of(num_classes)
        self.linear = nn.Linear(num_pixels, num_classes)
        padded = torch.zeros(self.num_rows, num_pixels)
        padded[:num_classes] = self.linear.weight.detach()
        self.linear.weight = nn.Parameter(padded[:num_classes])

    @classmethod
    def rows_of(cls, num_classes: int) -> int:
        """Rows that are multiplied for so many classes."""
        return math.ceil(num_classes / cls.PADDED_ROWS) * cls.PADDED_ROWS

    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        # The bias apart: a product that starts from it may add it first or last, by its width.
        made = products.current().times(images.flatten(1), self._padded(weight))
        return made.narrow(1, 0, self.num_classes) + bias

    def _padded(self, weight: Tensor) -> Tensor:
        """(num_rows, pixels): with what stands behind the weights, or a copy if they have moved."""
        rows, pixels = self.num_rows, weight.shape[1]
        end = weight.storage_offset() + rows * pixels
        if weight.untyped_storage().nbytes() >= end * weight.element_size():
            return weight.as_strided((rows, pixels), (pixels, 1))
        return functional.pad(weight, (0, 0, 0, rows - len(weight)))

    def backpropagate(self, images: Tensor, logit_gradients: Tensor) -> list[Tensor]:
        by_class = logit_gradients.t()
        return [products.current().outer(by_class, images.flatten(1)), by_class.sum(1)]
