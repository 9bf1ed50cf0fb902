"""Tensors of many members in one, of which each member's own tensor is a view.

A matrix product may add up in an order that depends on addresses: on processors not made by Intel,
MKL's does on where a row of an operand or of the result begins modulo 16 bytes. So each member's part
of either begins where torch would put a tensor of its own: at a line of 64 bytes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

LINE_BYTES = 64


def room_for(shape: Sequence[int], like: Tensor) -> Tensor:
    """(K, ...) without values, of the type and device of `like`, each member's part at a line."""
    size = math.prod(shape[1:])
    each = padded(size, LINE_BYTES // like.element_size())
    strides = [math.prod(shape[i + 1 :]) for i in range(1, len(shape))]
    return like.new_empty(shape[0] * each).as_strided(tuple(shape), (each, *strides))


def aligned(stacked: Tensor) -> Tensor:
    """(K, ...) itself if each member's part begins at a line and is contiguous, or else such a copy."""
    begins_at_lines = stacked.stride(0) * stacked.element_size() % LINE_BYTES == 0
    if begins_at_lines and stacked[0].is_contiguous() and stacked.data_ptr() % LINE_BYTES == 0:
        return stacked
    return room_for(stacked.shape, stacked).copy_(stacked)


def stack(tensors: Sequence[Tensor], *, spare: int = 0) -> Tensor:
    """A copy of K tensors of one shape and layout as (K, ...), each in the memory layout of its own and
    beginning at a line.

    spare: further elements behind the last one, zeros, for kernels that want more rows than there are.
    """
    first = tensors[0]
    size = padded(first.numel(), LINE_BYTES // first.element_size())
    storage = first.new_zeros(len(tensors) * size + spare)
    stacked = storage.as_strided((len(tensors), *first.shape), (size, *first.stride()))
    for place, tensor in zip(stacked, tensors, strict=True):
        place.copy_(tensor)
    return stacked


def side_by_side(stacked: Tensor) -> Tensor:
    """(K * N, ...) of (K, N, ...) in the same layout: itself where nothing stands between the members,
    or else a copy.

    Not by flatten(): of a dimension of one it changes the stride, and strides decide which kernel runs.
    """
    count, each, *rest = stacked.shape
    size, strides = stacked[0].numel(), stacked.stride()[1:]
    if stacked.stride(0) != size:
        dense = stacked.new_empty(count * size).as_strided(stacked.shape, (size, *strides))
        stacked = dense.copy_(stacked)
    return stacked.as_strided((count * each, *rest), strides)


def stack_parameters(models: Sequence[nn.Module], *, spare: int = 0) -> list[Tensor]:
    """The parameters of K models, stacked in their order; the models' own become views of them.

    Whatever changes a model in place from now on changes the stack, and the other way round.
    """
    together = copied_parameters(models, spare=spare)
    for model, places in zip(models, zip(*together, strict=True), strict=True):
        for parameter, place in zip(model.parameters(), places, strict=True):
            parameter.data = place
    return together


def copied_parameters(models: Sequence[nn.Module], *, spare: int = 0) -> list[Tensor]:
    """The parameters of K models, stacked in their order."""
    return [
        stack([parameter.detach() for parameter in parameters], spare=spare)
        for parameters in zip(*(model.parameters() for model in models), strict=True)
    ]


def per_member(values: Sequence[float], like: Tensor) -> float | Tensor:
    """One number for each of K members: one float if all are equal, or else a tensor (K,).

    Rounded from double to the type of `like` as torch rounds a Python number.
    """
    if all(value == values[0] for value in values):
        return values[0]
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def beside(numbers: float | Tensor, stacked: Tensor) -> float | Tensor:
    """Numbers of K members, to be multiplied with their (K, ...)."""
    if isinstance(numbers, float):
        return numbers
    return numbers.view(-1, *(1,) * (stacked.dim() - 1))


def padded(count: int, multiple: int) -> int:
    return math.ceil(count / multiple) * multiple
