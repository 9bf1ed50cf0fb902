"""What torch promises no one: operators of its own that layers side by side call, against autograd."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from digitlab.models.logistic_regression import LogisticRegression
from digitlab.training.fused import convnet, layers
from digitlab.training.fused.layers import APART, TOGETHER, Ways
from digitlab.training.fused.stacking import stack


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(outputs: Tensor, inputs: list[Tensor], by_outputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(outputs, inputs, by_outputs)


def test_pooling_and_its_gradient() -> None:
    images = random(5, 6, 8, 8, seed=0).requires_grad_()
    expected = functional.max_pool2d(images, 2)
    pooled, places = convnet.pool(images.detach(), convnet.POOL)
    assert torch.equal(pooled, expected)
    by_pooled = random(*pooled.shape, seed=1)
    (by_images,) = gradients(expected, [images], by_pooled)
    assert torch.equal(convnet._unpool(by_pooled, images.detach(), places), by_images)


def test_the_gradient_of_relu() -> None:
    numbers = random(40, seed=0).requires_grad_()
    active = functional.relu(numbers)
    (expected,) = gradients(active, [numbers], by_active := random(40, seed=1))
    assert torch.equal(convnet.relu_backward(by_active, active.detach(), 0), expected)


@pytest.mark.parametrize("way", [TOGETHER, APART])
def test_the_gradients_of_a_convolution(way: str) -> None:
    images = random(5, 2 * 3, 9, 9, seed=0).requires_grad_()
    own = [random(4, 3, 5, 5, seed=seed).requires_grad_() for seed in (1, 2)]
    biases = [random(4, seed=seed).requires_grad_() for seed in (3, 4)]
    made = [functional.conv2d(*part) for part in zip(images.chunk(2, 1), own, biases, strict=True)]
    expected = gradients(torch.cat(made, 1), [images, *own, *biases], by := random(5, 8, 5, 5, seed=5))
    weight = stack([part.detach() for part in own])
    by_images, by_weight, by_bias = layers.convolve_backward(
        by, images.detach(), weight, Ways(by_input=way, by_weight=way)
    )
    found = [by_images, *by_weight, *by_bias]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_model_is_multiplied_with_the_zeros_that_stand_behind_its_weights() -> None:
    """Beyond the ends of a tensor, into its storage."""
    model = LogisticRegression((1, 28, 28), 10)
    weight = model.linear.weight.detach()
    padded = model._padded(weight)
    assert padded.data_ptr() == weight.data_ptr()
    assert torch.equal(padded[:10], weight)
    assert not padded[10:].any()
    moved = weight.clone()
    assert torch.equal(model._padded(moved), padded)
