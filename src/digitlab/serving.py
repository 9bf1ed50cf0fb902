"""A saved model as MLflow loads it: pixels in, probabilities out. No pickle anywhere.

Layout of the folder: config.yaml (the run's resolved configuration) and weights.safetensors.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import yaml
from safetensors.torch import load_file, save
from torch import Tensor, nn

from digitlab.checking import recorded_config
from digitlab.config import Config
from digitlab.data import SIDE, Split
from digitlab.evaluation import predict
from digitlab.models import build_model

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "weights.safetensors"


def save_weights(state: dict[str, Tensor], file: Path) -> None:
    """Tensors only, no code; the same weights give the same bytes."""
    # Not save_file, which makes the file unreadable for everybody else.
    file.write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in state.items()}))


def weights_digest(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def load_weights(model: nn.Module, file: Path) -> None:
    """Copy saved weights into `model`, keeping its memory layout."""
    model.load_state_dict(load_file(file))


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained model together with the normalisation that it was trained with."""

    model: nn.Module
    config: Config

    def predict(
        self, images: npt.NDArray[np.uint8], params: dict[str, object] | None = None
    ) -> npt.NDArray[np.float32]:
        """Probabilities (N, 10) of uint8 images (N, 28, 28), white ink (255) on black (0)."""
        pixels = torch.from_numpy(np.ascontiguousarray(images, dtype=np.uint8))
        labels = torch.zeros(len(pixels), dtype=torch.int64)
        data = self.config.data
        logits = predict(self.model, Split(pixels.view(-1, SIDE, SIDE), labels, data.mean, data.std))
        return logits.softmax(1).numpy()


def load_classifier(folder: Path) -> Classifier:
    config = recorded_config(yaml.safe_load((folder / CONFIG_FILE).read_text()))
    model = build_model(config.model, config.seed)
    load_weights(model, folder / WEIGHTS_FILE)
    return Classifier(model, config)


def _load_pyfunc(path: str) -> Classifier:
    """Called by mlflow.pyfunc.load_model, which finds this module by its name."""
    return load_classifier(Path(path))
