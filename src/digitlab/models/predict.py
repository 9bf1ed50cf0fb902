"""The logits of a model for a whole split, batch by batch."""

import torch
from torch import Tensor, nn

from digitlab.data.splits import Split

BATCH_SIZE = 1000  # the fastest on a CPU; the logits of an image do not depend on it


@torch.no_grad()
def predict(model: nn.Module, split: Split) -> Tensor:
    """Logits (N, 10) on the CPU, in evaluation mode; draws no random number."""
    was_training = model.training
    model.eval()
    logits = [
        model(split.normalised(slice(start, start + BATCH_SIZE)))
        for start in range(0, len(split), BATCH_SIZE)
    ]
    model.train(was_training)
    return torch.cat(logits).cpu()
