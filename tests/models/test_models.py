"""The two models against the definitions they are taken from."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from digitlab.config.schema import CNNConfig, LogisticRegressionConfig, ModelConfig
from digitlab.models.build import ClosedForm, build_model, weight_shapes
from digitlab.models.cnn import ConvNet
from digitlab.training.gradients import differentiator

Shape = tuple[int, int, int]
MNIST: dict[str, Any] = {"image_shape": (1, 28, 28), "num_classes": 10}

TUTORIAL = CNNConfig(
    name="cnn", channels_1=10, channels_2=20, hidden_units=50, conv_dropout=0.5, hidden_dropout=0.5
)


LOGISTIC = LogisticRegressionConfig(name="logistic_regression")
# Channels, height, width, and classes.
SHAPES = [((1, 28, 28), 10), ((1, 8, 8), 2), ((3, 32, 48), 17), ((3, 16, 256), 1000), ((1, 40, 15), 16)]


@pytest.mark.parametrize(("shape", "num_classes"), SHAPES)
def test_logistic_regression_is_one_linear_layer_on_the_pixels(shape: Shape, num_classes: int) -> None:
    model = build_model(LOGISTIC, seed=0, image_shape=shape, num_classes=num_classes)
    images, pixels = torch.randn(7, *shape), math.prod(shape)
    weight, bias = (p.detach() for p in model.parameters())
    torch.testing.assert_close(model(images), images.reshape(7, pixels) @ weight.T + bias)
    assert sum(p.numel() for p in model.parameters()) == (pixels + 1) * num_classes


@pytest.mark.parametrize(("shape", "num_classes"), SHAPES)
def test_the_gradients_of_logistic_regression_are_autograds(shape: Shape, num_classes: int) -> None:
    model = build_model(LOGISTIC, seed=0, image_shape=shape, num_classes=num_classes)
    assert isinstance(model, ClosedForm)
    images, labels = torch.randn(9, *shape), torch.arange(9) % num_classes
    expected = torch.autograd.grad(
        nn.functional.cross_entropy(model(images), labels), list(model.parameters())
    )
    _, _, found = differentiator(model, list(model.parameters()))(images, labels)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("shape", "num_classes", "padding", "features"),
    [
        ((1, 28, 28), 10, 0, 320),
        ((1, 8, 8), 2, 2, 80),
        ((3, 15, 15), 5, 2, 180),
        ((3, 15, 64), 5, 2, 960),  # both sides are padded where one is short
        ((3, 16, 16), 5, 0, 20),
        ((3, 32, 48), 17, 0, 900),
    ],
)
def test_the_cnn_computes_what_the_tutorials_layers_compute(
    shape: Shape, num_classes: int, padding: int, features: int
) -> None:
    model = build_model(TUTORIAL, seed=0, image_shape=shape, num_classes=num_classes)
    layers = nn.Sequential(
        *(nn.Conv2d(shape[0], 10, 5, padding=padding), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5, padding=padding), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(features, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, num_classes)),
    )
    layers.load_state_dict(dict(zip(layers.state_dict(), model.state_dict().values(), strict=True)))
    images = torch.randn(8, *shape)
    for training in (False, True):
        model.train(training)
        layers.train(training)
        torch.default_generator.manual_seed(1)
        ours = model(images)
        torch.default_generator.manual_seed(1)
        torch.testing.assert_close(ours, layers(images))


@pytest.mark.parametrize("config", [LOGISTIC, TUTORIAL])
@pytest.mark.parametrize(("shape", "num_classes"), SHAPES)
def test_the_shapes_of_weights_are_known_without_them(
    config: ModelConfig, shape: Shape, num_classes: int
) -> None:
    model = build_model(config, seed=0, image_shape=shape, num_classes=num_classes)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert weight_shapes(config, image_shape=shape, num_classes=num_classes) == expected


def test_sizes_and_dropout_are_knobs() -> None:
    config = CNNConfig(
        name="cnn", channels_1=3, channels_2=4, hidden_units=5, conv_dropout=0.0, hidden_dropout=0.1
    )
    model = ConvNet(config, (1, 28, 28), 10)
    assert (model.conv_dropout.p, model.hidden_dropout.p) == (0.0, 0.1)
    assert model.state_dict()["hidden.weight"].shape == (5, 64)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_convolutions_are_stored_channels_last() -> None:
    """The strides decide the kernel, also for one input channel, where torch finds them ambiguous."""
    model = ConvNet(TUTORIAL, (1, 28, 28), 10)
    assert model.conv_1.weight.stride() == (25, 1, 5, 1)
    assert model.conv_2.weight.stride() == (250, 1, 50, 10)


def test_initial_weights_come_from_the_seed_alone() -> None:
    first = build_model(TUTORIAL, seed=0, **MNIST).state_dict()
    torch.rand(5)
    again, other = (
        build_model(TUTORIAL, seed=0, **MNIST).state_dict(),
        build_model(TUTORIAL, seed=1, **MNIST).state_dict(),
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
