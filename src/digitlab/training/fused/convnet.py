"""Convolutional networks side by side: the channels of all members are the channels of one image.

Gradients are written out, so that a layer can be computed together one way and member by member the
other (see layers.py).
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from digitlab.data.splits import Split
from digitlab.models.cnn import ConvNet
from digitlab.models.predict import predict
from digitlab.training.fused.layers import (
    Ways,
    convolution_ways,
    convolve,
    convolve_backward,
    linear_way,
    multiply,
    multiply_backward,
)
from digitlab.training.fused.stacking import aligned, room_for

POOL = (2, 2)

pool = torch.ops.aten.max_pool2d_with_indices
pool_backward = torch.ops.aten.max_pool2d_with_indices_backward
relu_backward = torch.ops.aten.threshold_backward


class FusedConvNet:
    """K members that see the same images: one group.

    models: for their rates of dropout, and to predict. parameters: theirs, stacked, (K, ...) each.
    """

    network: ClassVar[type[nn.Module]] = ConvNet
    max_groups: ClassVar[int] = 1

    def __init__(
        self, models: Sequence[nn.Module], parameters: Sequence[Tensor], num_groups: int
    ) -> None:
        self._models, self._parameters = models, parameters
        self._last = parameters[6]  # the weights of the output layer
        self._padding = padding_of(models[0])
        self._backward: Callable[[Tensor], list[Tensor]] | None = None

    @classmethod
    def spare(cls, model: nn.Module) -> int:
        return 0

    def logits(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """(K, C, B) of images (1, B, *image_shape); dropout draws from `generators`."""
        (images,) = images
        w_1, b_1, w_2, b_2, w_3, b_3, w_4, b_4 = self._parameters
        members, size, padding = len(self._models), len(images), self._padding
        made_1 = convolve(images, w_1, b_1, self._ways(images, w_1).forward, padding)
        pooled_1, places_1 = pool(made_1, POOL)
        inner = functional.relu(pooled_1)
        made_2 = convolve(inner, w_2, b_2, self._ways(inner, w_2).forward, padding)
        pooled_2, places_2 = pool(made_2, POOL)
        features = pooled_2.view(size, members, -1, *pooled_2.shape[2:]).transpose(0, 1)
        noise_2 = self._noise("conv_dropout", (*features.shape[:3], 1, 1), generators)
        active = functional.relu(features * noise_2)
        flat = aligned(active.flatten(2))
        hidden = functional.relu(multiply(flat, w_3, b_3, self._linear_way(flat, w_3)))
        noise_3 = self._noise("hidden_dropout", hidden.shape, generators)
        kept = torch.mul(hidden, noise_3, out=room_for(hidden.shape, hidden))

        def backward(by_class: Tensor) -> list[Tensor]:
            gradient = aligned(by_class).transpose(1, 2)
            way = self._linear_way(kept, w_4)
            by_kept, by_w_4, by_b_4 = multiply_backward(gradient, kept, w_4, way)
            by_hidden = aligned(relu_backward(by_kept * noise_3, hidden, 0))
            way = self._linear_way(flat, w_3)
            by_flat, by_w_3, by_b_3 = multiply_backward(by_hidden, flat, w_3, way)
            by_features = relu_backward(by_flat.view(active.shape), active, 0) * noise_2
            by_pooled = by_features.transpose(0, 1).reshape(pooled_2.shape)
            by_made = _unpool(by_pooled, made_2, places_2)
            ways = self._ways(inner, w_2)
            by_inner, by_w_2, by_b_2 = convolve_backward(by_made, inner, w_2, ways, padding)
            by_made = _unpool(relu_backward(by_inner, inner, 0), made_1, places_1)
            ways = self._ways(images, w_1)._replace(by_input="")  # nothing is learnt of images
            _, by_w_1, by_b_1 = convolve_backward(by_made, images, w_1, ways, padding)
            return [by_w_1, by_b_1, by_w_2, by_b_2, by_w_3, by_b_3, by_w_4, by_b_4]

        self._backward = backward
        return multiply(kept, w_4, b_4, self._linear_way(kept, w_4)).transpose(1, 2)

    def backpropagate(self, by_class: Tensor, into: Sequence[Tensor]) -> None:
        """Write the parameters' gradients `into` (K, ...), from those (K, C, B) of the last logits."""
        assert self._backward is not None, "logits come first"
        for place, gradient in zip(into, self._backward(by_class), strict=True):
            place.copy_(gradient)
        self._backward = None

    def predict(self, split: Split) -> list[Tensor]:
        """Logits (N, C) of each member, on the CPU: in large batches there is nothing to gain."""
        return [predict(model, split) for model in self._models]

    def _noise(
        self, layer: str, shape: Sequence[int], generators: Sequence[torch.Generator]
    ) -> Tensor | float:
        """What torch's dropout multiplies with: 0 or 1 / (1 - p); 1 for a member that drops nothing."""
        rates = [float(getattr(model, layer).p) for model in self._models]
        if not any(rates):
            return 1.0
        noise = self._parameters[0].new_ones(shape)
        for member, rate, generator in zip(noise, rates, generators, strict=True):
            if rate:
                member.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
        return noise

    def _ways(self, images: Tensor, weight: Tensor) -> Ways:
        return convolution_ways(images.shape, weight.shape, images.device, self._padding)

    def _linear_way(self, inputs: Tensor, weight: Tensor) -> str:
        return linear_way(inputs.shape, weight.shape[1], inputs.device, is_last=weight is self._last)


def padding_of(model: nn.Module) -> int:
    """Zeros on every side of what its convolutions see."""
    assert isinstance(model, ConvNet)
    return model.padding


def _unpool(gradient: Tensor, images: Tensor, places: Tensor) -> Tensor:
    made: Tensor = pool_backward(gradient, images, POOL, POOL, [0, 0], [1, 1], False, places)
    return made
