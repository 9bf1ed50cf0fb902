"""Tensors of many members in one, of which each member's own tensor is a view."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def stack(tensors: Sequence[Tensor], *, spare: int = 0) -> Tensor:
    """A copy of K tensors of one shape and layout as (K, ...), each in the memory layout of its own.

    spare: further elements behind the last one, zeros, for kernels that want more rows than there are.
    """
    first = tensors[0]
    size = first.numel()
    storage = first.new_zeros(len(tensors) * size + spare)
    stacked = storage.as_strided((len(tensors), *first.shape), (size, *first.stride()))
    for place, tensor in zip(stacked, tensors, strict=True):
        place.copy_(tensor)
    return stacked


def stack_parameters(models: Sequence[nn.Module], *, spare: int = 0) -> list[Tensor]:
    """The parameters of K models, stacked in their order; the models' own become views of them.

    Whatever changes a model in place from now on changes the stack, and the other way round.
    """
    together = []
    for parameters in zip(*(model.parameters() for model in models), strict=True):
        stacked = stack([parameter.detach() for parameter in parameters], spare=spare)
        for parameter, place in zip(parameters, stacked, strict=True):
            parameter.data = place
        together.append(stacked)
    return together


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
