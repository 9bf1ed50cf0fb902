"""Convolutional networks side by side: the channels of all members are the channels of one image.

Layers whose kernels round otherwise for many members than for one, or gain nothing by many, are
computed member by member on tensors of their own; which they are is found out by trial (see
exact_ways.py). Gradients are written out, since that is how a layer can be computed together one way
and apart the other.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from digitlab.data.splits import Split
from digitlab.models.cnn import ConvNet
from digitlab.models.predict import predict
from digitlab.training.fused.exact_ways import Compute, Draw, choose, draws
from digitlab.training.fused.stacking import aligned, room_for, side_by_side, stack

TOGETHER, APART = "together", "one by one"
POOL = (2, 2)

pool = torch.ops.aten.max_pool2d_with_indices
pool_backward = torch.ops.aten.max_pool2d_with_indices_backward
relu_backward = torch.ops.aten.threshold_backward


class Forms(NamedTuple):
    """How a layer of K members is computed: TOGETHER or APART; its gradients by inputs, by weights."""

    forward: str = TOGETHER
    by_input: str = TOGETHER
    by_weight: str = TOGETHER


class FusedConvNet:
    """K members that see the same images.

    models: for their rates of dropout, and to predict. parameters: theirs, stacked, (K, ...) each.
    """

    def __init__(self, models: Sequence[ConvNet], parameters: Sequence[Tensor]) -> None:
        self._models, self._parameters = models, parameters
        self._last = parameters[6]  # the weights of the output layer
        self._backward: Callable[[Tensor], list[Tensor]] | None = None

    def logits(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """(K, 10, B) of images (1, B, 1, 28, 28); dropout draws from `generators`."""
        (images,) = images
        w_1, b_1, w_2, b_2, w_3, b_3, w_4, b_4 = self._parameters
        members, size = len(self._models), len(images)
        made_1 = convolve(images, w_1, b_1, self._forms(images, w_1).forward)
        pooled_1, places_1 = pool(made_1, POOL)
        inner = functional.relu(pooled_1)
        made_2 = convolve(inner, w_2, b_2, self._forms(inner, w_2).forward)
        pooled_2, places_2 = pool(made_2, POOL)
        features = pooled_2.view(size, members, -1, *pooled_2.shape[2:]).transpose(0, 1)
        noise_2 = self._noise("conv_dropout", (*features.shape[:3], 1, 1), generators)
        active = functional.relu(features * noise_2)
        flat = aligned(active.flatten(2))
        hidden = functional.relu(multiply(flat, w_3, b_3, self._linear_form(flat, w_3)))
        noise_3 = self._noise("hidden_dropout", hidden.shape, generators)
        kept = torch.mul(hidden, noise_3, out=room_for(hidden.shape, hidden))

        def backward(by_class: Tensor) -> list[Tensor]:
            gradient = aligned(by_class).transpose(1, 2)
            form = self._linear_form(kept, w_4)
            by_kept, by_w_4, by_b_4 = multiply_backward(gradient, kept, w_4, form)
            by_hidden = aligned(relu_backward(by_kept * noise_3, hidden, 0))
            form = self._linear_form(flat, w_3)
            by_flat, by_w_3, by_b_3 = multiply_backward(by_hidden, flat, w_3, form)
            by_features = relu_backward(by_flat.view(active.shape), active, 0) * noise_2
            by_pooled = by_features.transpose(0, 1).reshape(pooled_2.shape)
            by_made = _unpool(by_pooled, made_2, places_2)
            forms = self._forms(inner, w_2)
            by_inner, by_w_2, by_b_2 = convolve_backward(by_made, inner, w_2, forms)
            by_made = _unpool(relu_backward(by_inner, inner, 0), made_1, places_1)
            forms = self._forms(images, w_1)._replace(by_input="")  # nothing is learnt of images
            _, by_w_1, by_b_1 = convolve_backward(by_made, images, w_1, forms)
            return [by_w_1, by_b_1, by_w_2, by_b_2, by_w_3, by_b_3, by_w_4, by_b_4]

        self._backward = backward
        return multiply(kept, w_4, b_4, self._linear_form(kept, w_4)).transpose(1, 2)

    def backpropagate(self, by_class: Tensor, into: Sequence[Tensor]) -> None:
        """Write the parameters' gradients `into` (K, ...), from those (K, 10, B) of the last logits."""
        assert self._backward is not None, "logits come first"
        for place, gradient in zip(into, self._backward(by_class), strict=True):
            place.copy_(gradient)
        self._backward = None

    def predict(self, split: Split) -> list[Tensor]:
        """Logits (N, 10) of each member, on the CPU: in large batches there is nothing to gain."""
        return [predict(model, split) for model in self._models]

    def _noise(
        self, layer: str, shape: Sequence[int], generators: Sequence[torch.Generator]
    ) -> Tensor | float:
        """What torch's dropout multiplies with: 0 or 1 / (1 - p); 1 for who drops nothing."""
        rates = [float(getattr(model, layer).p) for model in self._models]
        if not any(rates):
            return 1.0
        noise = self._parameters[0].new_ones(shape)
        for member, rate, generator in zip(noise, rates, generators, strict=True):
            if rate:
                member.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
        return noise

    def _forms(self, images: Tensor, weight: Tensor) -> Forms:
        return convolution_forms(images.shape, weight.shape, images.device)

    def _linear_form(self, inputs: Tensor, weight: Tensor) -> str:
        return linear_form(inputs.shape, weight.shape[1], inputs.device, is_last=weight is self._last)


def convolve(images: Tensor, weight: Tensor, bias: Tensor, form: str) -> Tensor:
    """(B, K * out, ...) of K members: weight (K, out, in, h, w), bias (K, out).

    images: (B, K * in, ...), or (B, in, ...) if all see the same.
    """
    if form == TOGETHER:
        groups = images.shape[1] // weight.shape[2]
        return functional.conv2d(images, side_by_side(weight), bias.flatten(), groups=groups)
    parts = zip(_own(images, weight), _clones(weight), _clones(bias), strict=True)
    return _joined([functional.conv2d(*part) for part in parts])


def convolve_backward(
    gradient: Tensor, images: Tensor, weight: Tensor, forms: Forms
) -> tuple[Tensor, Tensor, Tensor]:
    """By images, weights and biases; what `forms` gives neither way is not computed, but empty."""
    results = [images.new_empty(0), images.new_empty(0), images.new_empty(0)]
    for way in (TOGETHER, APART):
        mask = [forms.by_input == way, forms.by_weight == way, forms.by_weight == way]
        if not any(mask):
            continue
        if way == TOGETHER:
            groups = images.shape[1] // weight.shape[2]
            found = _backward(gradient, images, side_by_side(weight), groups, mask)
        else:
            gradients = _members(gradient, len(weight))
            own = zip(gradients, _own(images, weight), _clones(weight), strict=True)
            parts = [_backward(*part, 1, mask) for part in own]
            columns = list(zip(*parts, strict=True))
            found = [_joined(columns[0]) if mask[0] else None]
            found += [torch.cat(column) if mask[1] else None for column in columns[1:]]
        results = [new if new is not None else old for new, old in zip(found, results, strict=True)]
    by_images, by_weight, by_bias = results
    if forms.by_weight:
        by_weight, by_bias = by_weight.view(weight.shape), by_bias.view(weight.shape[:2])
    return by_images, by_weight, by_bias


def multiply(inputs: Tensor, weight: Tensor, bias: Tensor, form: str) -> Tensor:
    """(K, B, out) of K members: inputs (K, B, in), weight (K, out, in), bias (K, out)."""
    if form == TOGETHER:
        made = room_for((*inputs.shape[:2], weight.shape[1]), inputs)
        return torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2), out=made)
    parts = zip(_clones(inputs), _clones(weight), _clones(bias), strict=True)
    return torch.stack([functional.linear(*part) for part in parts])


def multiply_backward(
    gradient: Tensor, inputs: Tensor, weight: Tensor, form: str
) -> tuple[Tensor, Tensor, Tensor]:
    """By inputs, weights and biases."""
    if form == TOGETHER:
        by_input = torch.bmm(gradient, weight, out=room_for(inputs.shape, inputs))
        by_weight = torch.bmm(gradient.transpose(1, 2), inputs, out=room_for(weight.shape, weight))
        return by_input, by_weight, gradient.sum(1)
    own = zip(_clones(gradient), _clones(inputs), _clones(weight), strict=True)
    parts = [(g.mm(w), g.t().mm(x), g.sum(0)) for g, x, w in own]
    by_input, by_weights, by_bias = (torch.stack(column) for column in zip(*parts, strict=True))
    return by_input, by_weights, by_bias


@functools.cache
def convolution_forms(images: torch.Size, weight: torch.Size, device: torch.device) -> Forms:
    """The fastest that are exact for K members' weights (K, out, in, h, w) and for images as convolve()
    takes them."""
    if weight[0] == 1:
        return Forms()
    members, out, into, height, width = weight
    sees_the_same = images[1] < members * into
    made = (images[0], out, images[2] - height + 1, images[3] - width + 1)

    def tensors(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, weights, biases and the gradient by what is made, laid out as in training."""
        seen = draw.activations(members, *images[:1], into, *images[2:], salt=0)
        batch = seen[0] if sees_the_same else _joined(list(seen))
        own = (draw.numbers(members, out, height, width, into, salt=1) / 10).permute(0, 1, 4, 2, 3)
        gradient = _joined(list(draw.gradients(members, *made, salt=3)))
        batch = batch.contiguous(memory_format=torch.channels_last)
        return batch, stack(list(own)), aligned(draw.numbers(members, out, salt=2)), gradient

    def ask(part: str, compute: Callable[..., Sequence[Tensor]]) -> str:
        def prepare(draw: Draw) -> tuple[Compute, Callable[[], Sequence[Tensor]]]:
            given = tensors(draw)
            return lambda way: compute(way, *given), lambda: compute(APART, *given)

        question = f"{device.type}: convolution of {tuple(images)} with {tuple(weight)}, {part}"
        num_results = members * torch.Size(made).numel()
        return choose(question, [TOGETHER, APART], draws(device, num_results), prepare)

    def forward(way: str, batch: Tensor, weights: Tensor, bias: Tensor, _: Tensor) -> list[Tensor]:
        return [convolve(batch, weights, bias, way)]

    def by_input(way: str, batch: Tensor, weights: Tensor, _: Tensor, gradient: Tensor) -> list[Tensor]:
        return list(convolve_backward(gradient, batch, weights, Forms("", way, ""))[:1])

    def by_weight(
        way: str, batch: Tensor, weights: Tensor, _: Tensor, gradient: Tensor
    ) -> list[Tensor]:
        return list(convolve_backward(gradient, batch, weights, Forms("", "", way))[1:])

    return Forms(
        ask("forward", forward),
        "" if sees_the_same else ask("by input", by_input),
        ask("by weight", by_weight),
    )


@functools.cache
def linear_form(inputs: torch.Size, width: int, device: torch.device, *, is_last: bool) -> str:
    """The fastest way that is exact for K members' inputs (K, B, in) and outputs (K, B, width).

    is_last: gradients by the outputs come class by class then.
    """
    if inputs[0] == 1:
        return APART
    members, size, into = inputs

    def prepare(draw: Draw) -> tuple[Compute, Callable[[], Sequence[Tensor]]]:
        data = aligned(draw.activations(members, size, into, salt=0))
        weight = aligned(draw.numbers(members, width, into, salt=1) / into)
        bias = aligned(draw.numbers(members, width, salt=2))
        if is_last:
            gradient = aligned(draw.gradients(members, width, size, salt=3)).transpose(1, 2)
        else:
            gradient = aligned(draw.gradients(members, size, width, salt=3))

        def compute(way: str) -> list[Tensor]:
            made = multiply(data, weight, bias, way)
            return [made, *multiply_backward(gradient, data, weight, way)]

        return compute, lambda: compute(APART)

    question = f"{device.type}: linear layers of {tuple(inputs)} to {width}{' classes' * is_last}"
    fewest = members * min(size * width, size * into, width * into)  # numbers in one of the results
    return choose(question, [TOGETHER, APART], draws(device, fewest), prepare)


def _backward(
    gradient: Tensor, images: Tensor, weight: Tensor, groups: int, mask: Sequence[bool]
) -> list[Tensor | None]:
    found: Sequence[Tensor | None] = torch.ops.aten.convolution_backward(
        gradient, images, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], groups, mask
    )
    return list(found)


def _unpool(gradient: Tensor, images: Tensor, places: Tensor) -> Tensor:
    made: Tensor = pool_backward(gradient, images, POOL, POOL, [0, 0], [1, 1], False, places)
    return made


def _members(images: Tensor, count: int) -> list[Tensor]:
    """Each member's channels of (B, K * C, H, W), laid out as if it were alone."""
    parts = images.chunk(count, dim=1)
    return [part.contiguous(memory_format=torch.channels_last) for part in parts]


def _own(images: Tensor, weight: Tensor) -> Sequence[Tensor]:
    """The images that each of the K members of a weight (K, out, in, h, w) sees."""
    if images.shape[1] == weight.shape[2]:
        return [images] * len(weight)
    return _members(images, len(weight))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """(B, K * C, H, W), of the K members' (B, C, H, W)."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts), dim=1).contiguous(memory_format=torch.channels_last)


def _clones(stacked: Tensor) -> list[Tensor]:
    """Tensors of each member's own, laid out as its part."""
    return [part.clone() for part in stacked]
