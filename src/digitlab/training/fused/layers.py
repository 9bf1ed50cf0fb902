"""Layers of many members, computed together or member by member, and their gradients, written out.

Which way has the bits of each member alone, and is the fastest, is found by trial (see
exact_ways.py). Knows no network.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from digitlab.training.fused.exact_ways import Compute, Draw, choose, draws
from digitlab.training.fused.stacking import aligned, room_for, side_by_side, stack

TOGETHER, APART = "together", "one by one"


class Ways(NamedTuple):
    """How a layer of K members is computed: TOGETHER or APART; its gradients by inputs, by weights."""

    forward: str = TOGETHER
    by_input: str = TOGETHER
    by_weight: str = TOGETHER


def convolve(images: Tensor, weight: Tensor, bias: Tensor, way: str, padding: int = 0) -> Tensor:
    """(B, K * out, ...) of K members: weight (K, out, in, h, w), bias (K, out).

    images: (B, K * in, ...), or (B, in, ...) if all see the same.
    """
    if way == TOGETHER:
        groups = images.shape[1] // weight.shape[2]
        return functional.conv2d(
            images, side_by_side(weight), bias.flatten(), padding=padding, groups=groups
        )
    parts = zip(_own(images, weight), _clones(weight), _clones(bias), strict=True)
    return _joined([functional.conv2d(*part, padding=padding) for part in parts])


def convolve_backward(
    gradient: Tensor, images: Tensor, weight: Tensor, ways: Ways, padding: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """By images, weights and biases; what `ways` gives neither way is not computed, but empty."""
    results = [images.new_empty(0), images.new_empty(0), images.new_empty(0)]
    for way in (TOGETHER, APART):
        mask = [ways.by_input == way, ways.by_weight == way, ways.by_weight == way]
        if not any(mask):
            continue
        if way == TOGETHER:
            groups = images.shape[1] // weight.shape[2]
            computed = _backward(gradient, images, side_by_side(weight), padding, groups, mask)
        else:
            gradients = _members(gradient, len(weight))
            own = zip(gradients, _own(images, weight), _clones(weight), strict=True)
            parts = [_backward(*part, padding, 1, mask) for part in own]
            columns = list(zip(*parts, strict=True))
            computed = [_joined(columns[0]) if mask[0] else None]
            computed += [torch.cat(column) if mask[1] else None for column in columns[1:]]
        results = [new if new is not None else old for new, old in zip(computed, results, strict=True)]
    by_images, by_weight, by_bias = results
    if ways.by_weight:
        by_weight, by_bias = by_weight.view(weight.shape), by_bias.view(weight.shape[:2])
    return by_images, by_weight, by_bias


def multiply(inputs: Tensor, weight: Tensor, bias: Tensor, way: str) -> Tensor:
    """(K, B, out) of K members: inputs (K, B, in), weight (K, out, in), bias (K, out)."""
    if way == TOGETHER:
        made = room_for((*inputs.shape[:2], weight.shape[1]), inputs)
        return torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2), out=made)
    parts = zip(_clones(inputs), _clones(weight), _clones(bias), strict=True)
    return torch.stack([functional.linear(*part) for part in parts])


def multiply_backward(
    gradient: Tensor, inputs: Tensor, weight: Tensor, way: str
) -> tuple[Tensor, Tensor, Tensor]:
    """By inputs, weights and biases."""
    if way == TOGETHER:
        by_input = torch.bmm(gradient, weight, out=room_for(inputs.shape, inputs))
        by_weight = torch.bmm(gradient.transpose(1, 2), inputs, out=room_for(weight.shape, weight))
        return by_input, by_weight, gradient.sum(1)
    own = zip(_clones(gradient), _clones(inputs), _clones(weight), strict=True)
    parts = [(g.mm(w), g.t().mm(x), g.sum(0)) for g, x, w in own]
    by_input, by_weights, by_bias = (torch.stack(column) for column in zip(*parts, strict=True))
    return by_input, by_weights, by_bias


@functools.cache
def convolution_ways(
    images: torch.Size, weight: torch.Size, device: torch.device, padding: int = 0
) -> Ways:
    """The fastest that are exact for K members' weights (K, out, in, h, w) and for images as convolve()
    takes them."""
    if weight[0] == 1:
        return Ways()
    members, out, into, height, width = weight
    sees_the_same = images[1] < members * into
    spared = 2 * padding + 1
    made = (images[0], out, images[2] - height + spared, images[3] - width + spared)

    def tensors(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, weights, biases and the gradient by what is made, laid out as in training."""
        seen = draw.activations(members, *images[:1], into, *images[2:], salt=0)
        batch = seen[0] if sees_the_same else _joined(list(seen))
        own = (draw.numbers(members, out, height, width, into, salt=1) / 10).permute(0, 1, 4, 2, 3)
        gradient = _joined(list(draw.gradients(members, *made, salt=3)))
        if into == 1 or not sees_the_same:  # images in colour come channel by channel
            batch = batch.contiguous(memory_format=torch.channels_last)
        return batch, stack(list(own)), aligned(draw.numbers(members, out, salt=2)), gradient

    def ask(part: str, compute: Callable[..., Sequence[Tensor]]) -> str:
        def prepare(draw: Draw) -> tuple[Compute, Callable[[], Sequence[Tensor]]]:
            given = tensors(draw)
            return lambda way: compute(way, *given), lambda: compute(APART, *given)

        shapes = f"{tuple(images)} with {tuple(weight)}, padding {padding}"
        question = f"{device.type}: convolution of {shapes}, {part}"
        num_results = members * torch.Size(made).numel()
        return choose(question, [TOGETHER, APART], draws(device, num_results), prepare)

    def forward(way: str, batch: Tensor, weights: Tensor, bias: Tensor, _: Tensor) -> list[Tensor]:
        return [convolve(batch, weights, bias, way, padding)]

    def by_input(way: str, batch: Tensor, weights: Tensor, _: Tensor, gradient: Tensor) -> list[Tensor]:
        return list(convolve_backward(gradient, batch, weights, Ways("", way, ""), padding)[:1])

    def by_weight(
        way: str, batch: Tensor, weights: Tensor, _: Tensor, gradient: Tensor
    ) -> list[Tensor]:
        return list(convolve_backward(gradient, batch, weights, Ways("", "", way), padding)[1:])

    return Ways(
        ask("forward", forward),
        "" if sees_the_same else ask("by input", by_input),
        ask("by weight", by_weight),
    )


@functools.cache
def linear_way(inputs: torch.Size, width: int, device: torch.device, *, is_last: bool) -> str:
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
    gradient: Tensor, images: Tensor, weight: Tensor, padding: int, groups: int, mask: Sequence[bool]
) -> list[Tensor | None]:
    computed: Sequence[Tensor | None] = torch.ops.aten.convolution_backward(
        gradient,
        images,
        weight,
        [len(weight)],
        [1, 1],
        [padding, padding],
        [1, 1],
        False,
        [0, 0],
        groups,
        mask,
    )
    return list(computed)


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
