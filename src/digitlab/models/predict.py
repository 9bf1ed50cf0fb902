"""The logits of a model for a whole split, batch by batch."""

import math

import torch
from torch import Tensor, nn

from digitlab.data.splits import Split

LARGEST_BATCH = 1000  # the fastest on a CPU; the logits of an image do not depend on it
PIXELS_AT_ONCE = 4_000_000  # of colours, too; a CNN of 10 channels makes 40 bytes of each


def batch_size(split: Split) -> int:
    """Images that are predicted at once: of large ones fewer, so that memory does not grow."""
    return max(min(LARGEST_BATCH, PIXELS_AT_ONCE // math.prod(split.image_shape)), 1)


@torch.no_grad()
def predict(model: nn.Module, split: Split) -> Tensor:
    """Logits (N, C) on the CPU, in evaluation mode; draws no random number."""
    was_training, size = model.training, batch_size(split)
    model.eval()
    logits = [
        model(split.normalised(slice(start, start + size))) for start in range(0, len(split), size)
    ]
    model.train(was_training)
    return torch.cat(logits).cpu()
