"""Which models can be trained side by side, and in which chunks: the one place to name another.

A sweep is planned by this table, so that nothing here loads torch (2 s) before members are trained.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from digitlab.data.splits import Split


class FusedModel(Protocol):
    """K models of one kind in G groups of equal size; the members of a group see the same images.

    network: the kind of model. max_groups: that see different images, at once; more would leave the
    cache of a core.
    """

    network: "ClassVar[type[nn.Module]]"
    max_groups: ClassVar[int]

    def __init__(
        self, models: "Sequence[nn.Module]", parameters: "Sequence[Tensor]", num_groups: int
    ) -> None:
        """parameters: the models', stacked (K, ...), with what `spare` asks for."""

    @classmethod
    def spare(cls, model: "nn.Module") -> int:
        """Elements behind the last member's, in each stacked parameter, of models like this one."""

    def logits(self, images: "Tensor", generators: "Sequence[torch.Generator]") -> "Tensor":
        """(K, C, B) for C classes, in training mode, of images (G, B, *image_shape).

        generators: one of each member, which its dropout draws from as it would alone.
        """

    def backpropagate(self, by_class: "Tensor", into: "Sequence[Tensor]") -> None:
        """Write the parameters' gradients `into` (K, ...), from those (K, C, B) of the last logits."""

    def predict(self, split: "Split") -> "list[Tensor]":
        """Logits (N, C) of each member of one group, in evaluation mode, on the CPU."""


@dataclasses.dataclass(frozen=True, slots=True)
class Architecture:
    """How a sweep makes chunks of one kind of model.

    load: imports its class. largest_chunk: in trials. needs_one_order: whether only trials that see the
    images in one order are computed together. largest_batch: of 28x28 images; above it a chunk takes
    too much memory (a CNN 0.2 MB an image and trial). most_weights: of all trials of a chunk together.
    """

    load: "Callable[[], type[FusedModel]]"
    largest_chunk: int
    needs_one_order: bool
    largest_batch: int
    most_weights: int = 1 << 60

    def most_together(
        self, *, batch_size: int, image_shape: tuple[int, int, int], num_classes: int
    ) -> int:
        """Trials that fit into memory at once, for data of this size: `largest_chunk` or fewer."""
        channels, height, width = image_shape
        usual, asked = self.largest_batch * 28 * 28, batch_size * height * width
        by_batch = self.largest_chunk * usual // asked
        by_weights = self.most_weights // (channels * height * width * num_classes)
        return max(min(self.largest_chunk, by_batch, by_weights), 1)


def _logistic_regression() -> type[FusedModel]:
    from digitlab.training.fused.linear import FusedLogisticRegression

    return FusedLogisticRegression


def _cnn() -> type[FusedModel]:
    from digitlab.training.fused.convnet import FusedConvNet

    return FusedConvNet


ARCHITECTURES = {  # by model.name
    "logistic_regression": Architecture(
        _logistic_regression,
        largest_chunk=256,
        needs_one_order=False,
        largest_batch=1_000_000,
        most_weights=32_000_000,  # 128 MB, and as much for each of gradients and optimizer's averages
    ),
    "cnn": Architecture(_cnn, largest_chunk=4, needs_one_order=True, largest_batch=2048),
}


def fused_model(models: "Sequence[nn.Module]") -> type[FusedModel] | None:
    """The class for these models; None if they are of several kinds, or of none of the table."""
    kinds = {type(model) for model in models}
    classes = [architecture.load() for architecture in ARCHITECTURES.values()]
    return next((fused for fused in classes if {fused.network} == kinds), None)
