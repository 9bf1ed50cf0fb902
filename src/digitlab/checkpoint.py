"""The state of a training between two epochs, in one file: no code, written atomically.

The order of the images and dropout derive from (seed, epoch), so weights, the optimizer's state, the
best weights so far and the reports are all that the rest of a training depends on.
"""

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from digitlab.evaluation import Scores
from digitlab.record import write_atomically
from digitlab.training import EpochReport

FILE = "checkpoint.safetensors"
PARTS = ("model", "optimizer", "best")


@dataclasses.dataclass(slots=True)
class TrainingState:
    """After `len(history)` epochs. best: the weights of the best epoch so far, if they are kept."""

    history: list[EpochReport]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int


def save_checkpoint(folder: Path, state: TrainingState) -> None:
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part in PARTS
        for name, tensor in getattr(state, part).items()
    }
    reports = [dataclasses.asdict(report) for report in state.history]
    about = json.dumps({"history": reports, "best_epoch": state.best_epoch})
    write_atomically(folder / FILE, save(tensors, metadata={"state": about}))


def load_checkpoint(folder: Path) -> TrainingState | None:
    """The saved state; None if there is none that can be read, and training starts anew."""
    try:
        content = (folder / FILE).read_bytes()
        tensors = load(content)
        about = json.loads(_metadata(content)["state"])
        history = [_report(values) for values in about["history"]]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    parts = {part: _named(tensors, part) for part in PARTS}
    return TrainingState(history=history, best_epoch=about["best_epoch"], **parts)


def _named(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _metadata(content: bytes) -> dict[str, str]:
    """safetensors' Python API reads metadata from files only: 8 bytes of length, then JSON."""
    (length,) = struct.unpack("<Q", content[:8])
    found: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found


def _report(values: dict[str, Any]) -> EpochReport:
    validation = values.pop("validation")
    return EpochReport(
        train=Scores(**values.pop("train")),
        validation=Scores(**validation) if validation else None,
        **values,
    )
