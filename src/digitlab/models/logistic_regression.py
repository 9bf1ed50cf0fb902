"""Multinomial logistic regression. Knows nothing of losses, data sets or devices."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class LogisticRegression(nn.Module):
    """Multinomial logistic regression: one linear layer on the pixels.

    (B, 1, 28, 28) float32 -> logits (B, 10). Multiplied with six rows of zeros below the ten: libraries
    have kernels of their own for so few, while from 16 on the bits of a row do not depend on how many
    others there are, so that many models side by side agree with each alone (see training/fused/).
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
