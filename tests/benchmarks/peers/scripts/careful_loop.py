"""What a careful user writes: MNIST as tensors in memory, torch.optim, one thread.

Knows nothing of digitlab. Reads $DIGITLAB_DATA/MNIST/raw.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

BATCH_SIZE = 100
EPOCHS = {"logistic": 5, "cnn": 2, "cnn_channels_last": 2}
RATES = (1e-3, 0.3)  # the range of learning rates, drawn by their logarithm

Report = Callable[[int, dict[str, float]], None]


def _read(images: str, labels: str) -> tuple[Tensor, Tensor]:
    raw = Path(os.environ["DIGITLAB_DATA"]) / "MNIST" / "raw"
    pixels = np.frombuffer((raw / images).read_bytes()[16:], np.uint8).reshape(-1, 1, 28, 28)
    classes = np.frombuffer((raw / labels).read_bytes()[8:], np.uint8)
    normalised = (torch.from_numpy(pixels.copy()).float() / 255 - 0.1307) / 0.3081
    return normalised, torch.from_numpy(classes.copy()).long()


@functools.cache
def splits() -> dict[str, tuple[Tensor, Tensor]]:
    """55,000 images to train on, 5,000 to validate, 10,000 to test: (N, 1, 28, 28) and (N,)."""
    images, labels = _read("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    test = _read("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return {
        "train": (images[:55000], labels[:55000]),
        "validation": (images[55000:], labels[55000:]),
        "test": test,
    }


def build(model: str) -> nn.Sequential:
    if model == "logistic":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    network = nn.Sequential(
        *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10)),
    )
    return network.to(memory_format=_layout(model))


def _layout(model: str) -> torch.memory_format:
    return torch.channels_last if model == "cnn_channels_last" else torch.contiguous_format


def train(model: str, learning_rate: float, report: Report) -> tuple[float, float]:
    """Train by SGD; `report` gets each epoch's values. Returns accuracy on validation and test."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, layout, network = splits(), _layout(model), build(model)
    images, labels = data["train"]
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    for epoch in range(EPOCHS[model]):
        network.train()
        order, total = torch.randperm(len(images)), 0.0
        for batch in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            chosen = images[batch].contiguous(memory_format=layout)
            loss = criterion(network(chosen), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.item()
        validation = accuracy(network, *data["validation"])
        report(epoch, {"train_loss": total * BATCH_SIZE / len(images), "val_acc": validation})
    return validation, accuracy(network, *data["test"])


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    network.eval()
    correct = [
        (network(some).argmax(1) == theirs).sum().item()
        for some, theirs in zip(images.split(5000), labels.split(5000), strict=True)
    ]
    return sum(correct) / len(labels)
