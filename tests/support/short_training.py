"""The first steps of a training in a process of its own, to the bit: for tests of arithmetic.

    python -m tests.support.short_training < request.json

Must not import what is slow in an emulated processor: neither Hydra nor MLflow.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digitlab.config.checking import to_config, to_dict
from digitlab.config.schema import Config
from digitlab.training.arithmetic import VARIABLES

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What decides the bits of the first steps. Floats are hex, the rest are SHA-256.

    canary: `canary_again` is computed after the training, with the cache emptied.
    """

    canary: str
    canary_again: str
    initial_weights: str
    losses: list[str]
    weights: str


def first_steps(
    config: Config,
    num_steps: int,
    *,
    emulator: Sequence[str] = (),
    has_onednn: bool = True,
    **environment: str,
) -> Training:
    """Train in a new process, with none of arithmetic's variables but those of `environment`.

    emulator: what the interpreter is started by, such as `qemu-x86_64 -cpu Nehalem`.
    """
    request = {"config": to_dict(config), "num_steps": num_steps, "has_onednn": has_onednn}
    inherited = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    done = subprocess.run(
        [*emulator, sys.executable, "-m", "tests.support.short_training"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**inherited, **environment},
    )
    assert done.returncode == 0, done.stderr
    return Training(**json.loads(done.stdout))


def _train(config: Config, num_steps: int, *, has_onednn: bool) -> Training:
    import torch

    from digitlab.config import project
    from digitlab.data.splits import load
    from digitlab.models.build import build_model
    from digitlab.models.saved import weights_digest
    from digitlab.training import arithmetic
    from digitlab.training.loop import Position, fit
    from digitlab.training.loop import num_steps as steps_in_epoch
    from digitlab.training.optimizers import build_optimizer
    from digitlab.training.schedules import build_schedule

    class EnoughError(Exception):
        pass

    # What experiment.prepare_process does on a CPU, without all that it imports.
    arithmetic.prepare(config.arithmetic)
    torch.set_num_threads(config.threads)
    torch.backends.mkldnn.enabled = has_onednn
    canary = arithmetic.canary(threads=config.threads, device="cpu")
    train = load(config.data, project.data_root(config.data.root)).train
    model = build_model(config.model, config.seed, image_shape=train.image_shape, num_classes=10)
    initial_weights = weights_digest(model.state_dict())
    steps_per_epoch = steps_in_epoch(len(train), config.batch_size)
    seen: list[list[Any]] = []

    def before_step(position: Position) -> None:
        if position.step == 0:
            seen.append(position.losses)
        if sum(map(len, seen)) == num_steps:
            raise EnoughError

    try:
        for _ in fit(
            model,
            train,
            None,
            optimizer=build_optimizer(config.optimizer, list(model.parameters())),
            schedule=build_schedule(
                config.scheduler,
                config.optimizer.learning_rate,
                steps_per_epoch=steps_per_epoch,
                epochs=config.epochs,
            ),
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
            before_step=before_step,
        ):
            pass
    except EnoughError:
        pass
    arithmetic.canary_of.cache_clear()
    return Training(
        canary=canary,
        canary_again=arithmetic.canary(threads=config.threads, device="cpu"),
        initial_weights=initial_weights,
        losses=[loss.item().hex() for losses in seen for loss in losses],
        weights=weights_digest(model.state_dict()),
    )


def main() -> None:
    request = json.load(sys.stdin)
    config = to_config(request.pop("config"))
    json.dump(dataclasses.asdict(_train(config, **request)), sys.stdout)


if __name__ == "__main__":
    main()
