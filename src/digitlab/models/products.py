"""The two products of a logistic regression's step, and the libraries that compute them.

Each library rounds in its own way, so the one in use is part of a run's arithmetic. Which is the
fastest depends on the processor: training/products.py chooses. Knows no models.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """times: (M, P) and (N, P) to (M, N). outer: (M, B) and (B, P) to (M, P).

    Neither is differentiable, but for torch's own.
    """

    name: str
    times: Callable[[Tensor, Tensor], Tensor]
    outer: Callable[[Tensor, Tensor], Tensor]


def _torch_times(some: Tensor, others: Tensor) -> Tensor:
    return some.mm(others.t())


def _onednn_times(some: Tensor, others: Tensor) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(some, others, None, "none", [], "")
    return made


def _onednn_outer(gradients: Tensor, images: Tensor) -> Tensor:
    return _onednn_times(gradients, images.t())


TORCH = Product("torch.mm", _torch_times, torch.mm)  # MKL's on a processor of Intel or AMD
ALL = {
    product.name: product
    for product in (
        TORCH,
        Product("onednn", _onednn_times, _onednn_outer),
        Product("onednn-forward", _onednn_times, torch.mm),
    )
}

_current = TORCH


def current() -> Product:
    """What models of this process multiply with, where nothing is differentiated by autograd."""
    return TORCH if torch.is_grad_enabled() else _current


def in_use() -> Product:
    return _current


def use(product: Product) -> None:
    global _current
    _current = product


def is_available(product: Product) -> bool:
    """Whether this build of torch has it: oneDNN's operator is private to torch, and may go."""
    try:
        some, others = torch.ones(2, 16), torch.ones(16, 16)
        with torch.no_grad():
            made = torch.cat([product.times(some, others), product.outer(some, others)])
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((made == 16).all())
