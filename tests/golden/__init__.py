"""Step losses that must not change by themselves: portable arithmetic, embedded digits, both models.

    .venv/bin/python -m tests.golden    # writes them anew, after a change that is meant to move them

They are the same on every x86-64 processor, but not in every version of torch.
"""

import dataclasses
import json
from pathlib import Path

from digitlab.config.schema import Config
from digitlab.training.loop import NUM_FIRST_LOSSES
from tests.support.short_training import first_steps

FOLDER = Path(__file__).parent
MODELS = ("logistic_regression", "cnn")
OVERRIDES = ("arithmetic=portable", "epochs=2")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """step_losses: hex floats. weights: SHA-256, after as many steps."""

    command: str
    initial_weights: str
    step_losses: list[str]
    weights: str


def read(model: str) -> Golden:
    return Golden(**json.loads(_file(model).read_text()))


def measure(model: str, config: Config) -> Golden:
    found = first_steps(config, NUM_FIRST_LOSSES)
    return Golden(
        command=f"digitlab train model={model} {' '.join(OVERRIDES)}",
        initial_weights=found.initial_weights,
        step_losses=found.losses,
        weights=found.weights,
    )


def write(model: str, golden: Golden) -> None:
    _file(model).write_text(json.dumps(dataclasses.asdict(golden), indent=1) + "\n")


def _file(model: str) -> Path:
    return FOLDER / f"{model}.json"
