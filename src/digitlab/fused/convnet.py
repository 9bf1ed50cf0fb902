"""Convolutional networks side by side: the channels of all members are the channels of one image.

Layers whose kernels round otherwise for many members than for one are computed member by member;
which they are is found out by trial (see forms.py). Gradients are written out, since that is how a
layer can be computed together one way and apart the other.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from digitlab.data import Split
from digitlab.evaluation import predict
from digitlab.fused.forms import choose, random
from digitlab.models import ConvNet

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
    is_exact: whether each member's bits have to be those that it has alone.
    """

    def __init__(
        self, models: Sequence[ConvNet], parameters: Sequence[Tensor], *, is_exact: bool
    ) -> None:
        self._models, self._parameters, self._is_exact = models, parameters, is_exact
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
        flat = active.flatten(2)
        hidden = functional.relu(multiply(flat, w_3, b_3, self._linear_form(flat, w_3)))
        noise_3 = self._noise("hidden_dropout", hidden.shape, generators)
        kept = hidden * noise_3

        def backward(gradient: Tensor) -> list[Tensor]:
            form = self._linear_form(kept, w_4)
            by_kept, by_w_4, by_b_4 = multiply_backward(gradient, kept, w_4, form)
            by_hidden = relu_backward(by_kept * noise_3, hidden, 0)
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
        for place, gradient in zip(into, self._backward(by_class.transpose(1, 2)), strict=True):
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
        if not self._is_exact:
            return Forms()
        return convolution_forms(images.shape, weight.shape, images.device)

    def _linear_form(self, inputs: Tensor, weight: Tensor) -> str:
        if not self._is_exact:
            return TOGETHER
        return linear_form(inputs.shape, weight.shape[1], inputs.device)


def convolve(images: Tensor, weight: Tensor, bias: Tensor, form: str) -> Tensor:
    """(B, K * out, ...) of K members: weight (K, out, in, h, w), bias (K, out).

    images: (B, K * in, ...), or (B, in, ...) if all see the same.
    """
    if form == TOGETHER:
        groups = images.shape[1] // weight.shape[2]
        return functional.conv2d(images, _flat(weight), bias.flatten(), groups=groups)
    parts = zip(_own(images, weight), weight, bias, strict=True)
    return _side_by_side([functional.conv2d(*part) for part in parts])


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
            found = _backward(gradient, images, _flat(weight), groups, mask)
        else:
            own = zip(_members(gradient, len(weight)), _own(images, weight), weight, strict=True)
            parts = [_backward(*part, 1, mask) for part in own]
            columns = list(zip(*parts, strict=True))
            found = [_side_by_side(columns[0]) if mask[0] else None]
            found += [torch.cat(column) if mask[1] else None for column in columns[1:]]
        results = [new if new is not None else old for new, old in zip(found, results, strict=True)]
    by_images, by_weight, by_bias = results
    if forms.by_weight:
        by_weight, by_bias = by_weight.view(weight.shape), by_bias.view(weight.shape[:2])
    return by_images, by_weight, by_bias


def multiply(inputs: Tensor, weight: Tensor, bias: Tensor, form: str) -> Tensor:
    """(K, B, out) of K members: inputs (K, B, in), weight (K, out, in), bias (K, out)."""
    if form == TOGETHER:
        return torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2))
    return torch.stack([functional.linear(*own) for own in zip(inputs, weight, bias, strict=True)])


def multiply_backward(
    gradient: Tensor, inputs: Tensor, weight: Tensor, form: str
) -> tuple[Tensor, Tensor, Tensor]:
    """By inputs, weights and biases."""
    if form == TOGETHER:
        by_weight = gradient.transpose(1, 2).bmm(inputs)
        return gradient.bmm(weight), by_weight, gradient.sum(1)
    parts = [(g.mm(w), g.t().mm(x), g.sum(0)) for g, x, w in zip(gradient, inputs, weight, strict=True)]
    by_input, by_weights, by_bias = (torch.stack(column) for column in zip(*parts, strict=True))
    return by_input, by_weights, by_bias


@functools.cache
def convolution_forms(images: torch.Size, weight: torch.Size, device: torch.device) -> Forms:
    """Those that are exact for tensors of these shapes."""
    if weight[0] == 1:
        return Forms()
    made = torch.empty(weight, device=device).permute(0, 1, 3, 4, 2).contiguous()  # channels last
    weights = made.permute(0, 1, 4, 2, 3).copy_(random(*weight, device=device) / 10)
    bias = random(*weight[:2], device=device, seed=1)
    batch = random(*images, device=device, seed=2).contiguous(memory_format=torch.channels_last)
    out = functional.conv2d(batch[:1], _flat(weights), groups=images[1] // weight[2]).shape
    gradient = random(images[0], *out[1:], device=device, seed=3)
    gradient = gradient.contiguous(memory_format=torch.channels_last) / 100

    def ask(part: str, compute: Callable[[str], Sequence[Tensor]]) -> str:
        question = f"{device.type}: convolution of {tuple(images)} with {tuple(weight)}, {part}"
        return choose(question, [TOGETHER, APART], compute, lambda: compute(APART))

    return Forms(
        ask("forward", lambda way: [convolve(batch, weights, bias, way)]),
        ""
        if images[1] < weight[0] * weight[2]
        else ask(
            "by input",
            lambda way: convolve_backward(gradient, batch, weights, Forms("", way, ""))[:1],
        ),
        ask(
            "by weight",
            lambda way: convolve_backward(gradient, batch, weights, Forms("", "", way))[1:],
        ),
    )


@functools.cache
def linear_form(inputs: torch.Size, width: int, device: torch.device) -> str:
    """The way that is exact for K members' inputs (K, B, in) and outputs (K, B, width)."""
    if inputs[0] == 1:
        return APART
    members, size, into = inputs
    data = random(*inputs, device=device)
    weight = random(members, width, into, device=device, seed=1) / into
    bias = random(members, width, device=device, seed=2)
    gradient = random(members, size, width, device=device, seed=3)

    def compute(way: str) -> list[Tensor]:
        made = multiply(data, weight, bias, way)
        return [made, *multiply_backward(gradient, data, weight, way)]

    question = f"{device.type}: linear layers of {tuple(inputs)} to {width}"
    return choose(question, [TOGETHER, APART], compute, lambda: compute(APART))


def _flat(weight: Tensor) -> Tensor:
    """(K * out, in, h, w). Not by flatten(): of a dimension of one it changes the stride, and strides
    decide which kernel runs."""
    return weight.as_strided(
        (weight.shape[0] * weight.shape[1], *weight.shape[2:]), weight.stride()[1:]
    )


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


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts), dim=1).contiguous(memory_format=torch.channels_last)
