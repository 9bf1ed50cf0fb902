"""What this machine makes of many members side by side, in a sentence: bits, speed, refusals."""

import torch

from digitlab.config.schema import CNNConfig, LogisticRegressionConfig, ModelConfig, SGDConfig
from digitlab.data.splits import NUM_CLASSES, SIDE
from digitlab.models.build import build_model
from digitlab.training.fused.exact_ways import known_answers
from digitlab.training.fused.layers import APART, convolution_ways
from digitlab.training.fused.loop import LEAST_GAIN
from digitlab.training.fused.members import Member
from digitlab.training.fused.probe import NOT_AT_ALL, judge, noise
from digitlab.training.loop import Position
from digitlab.training.optimizers import SGD

BATCH_SIZE, NUM_IMAGES = 100, 1257  # of the embedded digits; the last batch is odd
IMAGE_SHAPE = (1, SIDE, SIDE)
CNN = CNNConfig(
    name="cnn",
    channels_1=10,
    channels_2=20,
    hidden_units=50,
    conv_dropout=0.5,
    hidden_dropout=0.5,
)
USUAL: list[tuple[str, ModelConfig, int]] = [
    ("logistic regressions", LogisticRegressionConfig(name="logistic_regression"), 64),
    ("CNNs", CNN, 4),
]


def exactness() -> str:
    """Of both models in the usual shapes, on one CPU thread; other shapes are tried when they come."""
    torch.set_num_threads(1)
    parts = [_sentence(f"{count} {name}", config, count) for name, config, count in USUAL]
    if apart := _layers_apart():
        parts.append(f"one CNN after another is computed in {apart}")
    tried = {q: answer for q, answer in known_answers().items() if ": training of " in q}
    refused = sum(answer.way == NOT_AT_ALL for answer in tried.values())
    slow = sum(a.way != NOT_AT_ALL and a.gain < LEAST_GAIN for a in tried.values())
    parts.append(
        f"of {len(tried)} kinds of chunks tried here, {refused} refused for their bits, {slow} without "
        "gain (mlruns/exact.json)"
    )
    return "; ".join(parts)


def _sentence(members: str, config: ModelConfig, count: int) -> str:
    images = noise(NUM_IMAGES, torch.device("cpu"), IMAGE_SHAPE, NUM_CLASSES)
    answer = judge([_member(config, seed) for seed in range(count)], images, BATCH_SIZE)
    if answer.way == NOT_AT_ALL:
        return (
            f"{members} side by side would not have the bits of each alone here, and are trained one "
            f"by one, which takes {answer.gain:.1f} times as long"
        )
    text = f"{members} side by side have the bits of each alone, at {answer.gain:.1f} times the speed"
    return text if answer.gain >= LEAST_GAIN else f"{text} (engine=auto trains them one by one)"


def _layers_apart() -> str:
    """Parts of the CNN that are not computed together, for their bits or for their speed."""
    cpu, count = torch.device("cpu"), USUAL[1][2]
    layers = {
        "conv_1": ((BATCH_SIZE, *IMAGE_SHAPE), (count, 10, 1, 5, 5)),
        "conv_2": ((BATCH_SIZE, 10 * count, 12, 12), (count, 20, 10, 5, 5)),
    }
    parts = []
    for name, (images, weight) in layers.items():
        forms = convolution_ways(torch.Size(images), torch.Size(weight), cpu)
        words = zip(("forward", "gradient by input", "gradient by weight"), forms, strict=True)
        parts += [f"{name} {word}" for word, form in words if form == APART]
    return ", ".join(parts)


def _member(config: ModelConfig, seed: int) -> Member:
    model = build_model(config, seed, image_shape=IMAGE_SHAPE, num_classes=NUM_CLASSES)
    rule = SGDConfig(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)
    return Member(
        model=model,
        optimizer=SGD(list(model.parameters()), rule),
        schedule=lambda step: 0.1,
        seed=seed,
        order_seed=0,
        position=Position(epoch=1),
    )
