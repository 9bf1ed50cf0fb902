"""The two models against the definitions they are taken from."""

import torch
from torch import nn

from digitlab.config.schema import CNNConfig, LogisticRegressionConfig
from digitlab.models.build import build_model
from digitlab.models.cnn import ConvNet

TUTORIAL = CNNConfig(
    name="cnn", channels_1=10, channels_2=20, hidden_units=50, conv_dropout=0.5, hidden_dropout=0.5
)


def test_logistic_regression_is_one_linear_layer_on_the_pixels() -> None:
    model = build_model(LogisticRegressionConfig(name="logistic_regression"), seed=0)
    images = torch.randn(7, 1, 28, 28)
    weight, bias = (p.detach() for p in model.parameters())
    torch.testing.assert_close(model(images), images.reshape(7, 784) @ weight.T + bias)
    assert sum(p.numel() for p in model.parameters()) == 7850


def test_the_cnn_computes_what_the_tutorials_layers_compute() -> None:
    model = build_model(TUTORIAL, seed=0)
    layers = nn.Sequential(
        *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10)),
    )
    layers.load_state_dict(dict(zip(layers.state_dict(), model.state_dict().values(), strict=True)))
    images = torch.randn(8, 1, 28, 28)
    for training in (False, True):
        model.train(training)
        layers.train(training)
        torch.default_generator.manual_seed(1)
        ours = model(images)
        torch.default_generator.manual_seed(1)
        torch.testing.assert_close(ours, layers(images))


def test_sizes_and_dropout_are_knobs() -> None:
    config = CNNConfig(
        name="cnn", channels_1=3, channels_2=4, hidden_units=5, conv_dropout=0.0, hidden_dropout=0.1
    )
    model = ConvNet(config)
    assert (model.conv_dropout.p, model.hidden_dropout.p) == (0.0, 0.1)
    assert model.state_dict()["hidden.weight"].shape == (5, 64)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_convolutions_are_stored_channels_last() -> None:
    """The strides decide the kernel, also for one input channel, where torch finds them ambiguous."""
    model = ConvNet(TUTORIAL)
    assert model.conv_1.weight.stride() == (25, 1, 5, 1)
    assert model.conv_2.weight.stride() == (250, 1, 50, 10)


def test_initial_weights_come_from_the_seed_alone() -> None:
    first = build_model(TUTORIAL, seed=0).state_dict()
    torch.rand(5)
    again, other = (
        build_model(TUTORIAL, seed=0).state_dict(),
        build_model(TUTORIAL, seed=1).state_dict(),
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
