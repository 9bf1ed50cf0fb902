"""A random search for a member that has other bits side by side than alone.

    python -m tests.support.random_members --chunks 100 [--seed N]

Draws chunks of 1 to 4 CNNs or 1 to 70 logistic regressions: all optimizers, odd and even widths,
batches and last batches; on the embedded digits, or on images of any shape and number of classes.
Prints the seed first, and at the end how many members were tried and refused.
"""

import argparse
import collections
import os
import random
import sys
import time
from collections.abc import Sequence
from unittest import mock

import torch

from digitlab.config.composition import Composer, compose, composer
from digitlab.config.schema import Config
from digitlab.data.splits import Split, load
from digitlab.training.fused import loop
from digitlab.training.fused.exact_ways import Answer
from digitlab.training.fused.members import STACKED, NotFusable
from tests.support.members import OPTIMIZERS, SCHEDULES, alone, drawn, some_of, together

Counts = collections.Counter[str]


def search(num_chunks: int, seed: int) -> Counts:
    """How many chunks and members of each model were tried, and what became of them: `unequal` members,
    `refused` chunks, and of those the ones `refused without need`, all equal when they are forced."""
    draw, found = random.Random(seed), Counts()
    digits = load(compose([]).data, None)  # type: ignore[arg-type]
    with composer() as made:
        for number in range(num_chunks):
            configs, num_images = chunk(draw, made)
            train, num_classes = some_of(digits, num_images), 10
            if draw.random() < 0.5:
                num_classes = draw.choice([2, draw.randint(2, 40), draw.randint(2, 300)])
                train = drawn(shape(draw), num_classes, num_images)
            model = configs[0].model.name
            found[f"{model}: chunks"] += 1
            found[f"{model}: members"] += len(configs)
            for problem, count in problems(configs, train, num_classes).items():
                found[problem] += count
                data = f"images {train.image_shape}, {num_classes} classes"
                print(f"seed {seed}, chunk {number}, {data}: {count} {problem}: {configs}", flush=True)
    return found


def chunk(draw: random.Random, made: Composer) -> tuple[list[Config], int]:
    """Members, and how many images they are trained on."""
    is_cnn = draw.random() < 0.5
    shape = ["model=logistic_regression"]
    if is_cnn:
        shape = ["model=cnn", f"model.channels_1={draw.randint(1, 12)}"]
        shape += [
            f"model.channels_2={draw.randint(1, 20)}",
            f"model.hidden_units={draw.randint(1, 60)}",
        ]
    batch_size = draw.choice([draw.randint(1, 8), draw.randint(1, 100), 32, 64, 100])
    # A last batch of one to all but one, or none; few steps of many images, since CNNs take long.
    num_images = batch_size * draw.randint(1, 4) + draw.randint(0, batch_size - 1)
    shape += [f"batch_size={batch_size}", f"epochs={draw.randint(1, 2)}"]
    num_orders = draw.choice([1, 1, 2, 70])
    configs = []
    for _ in range(
        draw.randint(1, 4) if is_cnn else draw.choice([draw.randint(1, 8), draw.randint(1, 70)])
    ):
        line = [*shape, *draw.choice(OPTIMIZERS)]
        line += [f"optimizer.learning_rate={10 ** draw.uniform(-4, -1)}"]
        line += [f"optimizer.weight_decay={draw.choice([0.0, 0.0, 0.01])}"]
        line += [f"scheduler={draw.choice(SCHEDULES)}", f"seed={draw.randint(0, 9)}"]
        line += [f"data.order_seed={draw.randrange(num_orders)}"]
        if is_cnn:
            line += [f"model.conv_dropout={draw.choice([0.0, 0.3])}"]
            line += [f"model.hidden_dropout={draw.choice([0.0, 0.5])}"]
        configs.append(made.compose(line))
    return configs, num_images


def shape(draw: random.Random) -> tuple[int, int, int]:
    return draw.choice([1, 3]), draw.randint(8, 40), draw.randint(8, 40)


def problems(configs: Sequence[Config], train: Split, num_classes: int) -> Counts:
    expected = [alone(config, train, None, num_classes) for config in configs]

    def num_unequal() -> int:
        found = together(configs, train, None, num_classes)
        return sum(one != other for one, other in zip(found, expected, strict=True))

    try:
        return +Counts({"unequal": num_unequal()})
    except NotFusable:
        with mock.patch.object(loop, "judge", return_value=Answer(STACKED)):
            needed = num_unequal() > 0
        return Counts({"refused": 1}) if needed else Counts({"refused": 1, "refused without need": 1})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chunks", type=int, required=True)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("seed", options.seed, flush=True)
    started = time.monotonic()
    found = search(options.chunks, options.seed)
    print({**found, "seconds": round(time.monotonic() - started)})
    sys.exit(1 if found["unequal"] or found["refused without need"] else 0)


if __name__ == "__main__":
    main()
