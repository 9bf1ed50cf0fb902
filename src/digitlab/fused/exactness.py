"""Whether this machine trains many members side by side to the bits of each alone, in a sentence."""

import torch

from digitlab.config import CNNConfig, LogisticRegressionConfig, ModelConfig, SGDConfig
from digitlab.fused.convnet import APART, convolution_forms
from digitlab.fused.members import Member
from digitlab.fused.training import NOT_AT_ALL, best_way
from digitlab.models import build_model
from digitlab.optimizers import SGD
from digitlab.training import Position

BATCH_SIZE = 100
CNN = CNNConfig(
    name="cnn",
    channels_1=10,
    channels_2=20,
    hidden_units=50,
    conv_dropout=0.5,
    hidden_dropout=0.5,
)
USUAL: list[tuple[str, ModelConfig, int]] = [
    ("logistic regression", LogisticRegressionConfig(name="logistic_regression"), 64),
    ("CNN", CNN, 4),
]


def exactness() -> str:
    """Of both models in the usual shapes, on one CPU thread; other shapes are tried when they come."""
    torch.set_num_threads(1)
    exact, others = list[str](), list[str]()
    for name, config, count in USUAL:
        members = [_member(config, seed) for seed in range(count)]
        is_exact = best_way(members, BATCH_SIZE, BATCH_SIZE) != NOT_AT_ALL
        (exact if is_exact else others).append(f"{count} {name}s")
    told = []
    if exact:
        told.append(f"{' or '.join(exact)} side by side have the bits of each alone")
    if others:
        told.append(f"{' and '.join(others)} would not have them here, and are trained one by one")
    if apart := _layers_apart():
        told.append(f"for that, one CNN after another in {apart}, which takes longer")
    return "; ".join(told)


def _layers_apart() -> str:
    """Parts of the CNN that this machine would round otherwise side by side."""
    cpu, count = torch.device("cpu"), USUAL[1][2]
    layers = {
        "conv_1": ((BATCH_SIZE, 1, 28, 28), (count, 10, 1, 5, 5)),
        "conv_2": ((BATCH_SIZE, 10 * count, 12, 12), (count, 20, 10, 5, 5)),
    }
    parts = []
    for name, (images, weight) in layers.items():
        forms = convolution_forms(torch.Size(images), torch.Size(weight), cpu)
        words = zip(("forward", "gradient by input", "gradient by weight"), forms, strict=True)
        parts += [f"{name} {word}" for word, form in words if form == APART]
    return ", ".join(parts)


def _member(config: ModelConfig, seed: int) -> Member:
    model = build_model(config, seed)
    rule = SGDConfig(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)
    return Member(
        model=model,
        optimizer=SGD(list(model.parameters()), rule),
        schedule=lambda step: 0.1,
        seed=seed,
        order_seed=0,
        position=Position(epoch=1),
    )
