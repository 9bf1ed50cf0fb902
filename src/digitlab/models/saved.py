"""A saved model: pixels in, probabilities out. No pickle anywhere.

Layout of the folder: config.yaml (the run's resolved configuration), weights.safetensors and model.json
(see signature.py).
"""

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import yaml
from safetensors.torch import load_file, save
from torch import Tensor, nn

from digitlab.config.checking import recorded_config
from digitlab.config.schema import Config
from digitlab.data.splits import Split, to_tensor
from digitlab.errors import UsageError
from digitlab.models import signature as signatures
from digitlab.models.build import build_model, weight_shapes
from digitlab.models.predict import predict
from digitlab.models.signature import MODEL_FILE, Signature

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "weights.safetensors"


def save_weights(state: dict[str, Tensor], file: Path) -> None:
    """Tensors only, no code; the same weights give the same bytes."""
    # Not save_file, which makes the file unreadable for everybody else.
    file.write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in state.items()}))


def weights_digest(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained model together with the normalisation that it was trained with."""

    model: nn.Module
    config: Config
    signature: Signature

    def predict(self, images: object) -> npt.NDArray[np.float32]:
        """Probabilities (N, C) of images as `as_images` takes them, 0 (black) to 255.

        Raises:
            UsageError: the images are of another shape, or their values no integers from 0 to 255.
        """
        pixels = to_tensor(as_images(images, self.signature))
        labels = torch.zeros(len(pixels), dtype=torch.int64)
        data = self.config.data
        return predict(self.model, Split(pixels, labels, data.mean, data.std)).softmax(1).numpy()


def as_images(given: object, signature: Signature) -> npt.NDArray[np.uint8]:
    """Whatever was handed in as (N, H, W), or as (N, H, W, 3) for a model of colour.

    Arrays, nested lists, or a table with a row for each image: its pixels row by row, and of each in
    turn red, green and blue.
    """
    shape = signature.picture_shape
    rows = (math.prod(shape),)
    expected = (
        f"the input must be images of shape (N, {', '.join(map(str, shape))}) or (N, {rows[0]}) "
        f"with integers from 0 (black) to 255 ({'full colour' if signature.is_colour else 'white ink'})"
    )
    try:
        array = np.asarray(given)
    except ValueError:
        raise UsageError(f"{expected}; got lists of different lengths") from None
    if array.dtype.kind not in "iuf":
        raise UsageError(f"{expected}; got values that are no numbers ({array.dtype})")
    if array.shape[1:] not in (shape, rows) or len(array) == 0:
        raise UsageError(f"{expected}; got the shape {array.shape}")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # so that NaN fails, too
        raise UsageError(f"{expected}; got values from {low} to {high}")
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
        raise UsageError(f"{expected}; got fractions: multiply values in [0, 1] by 255 and round them")
    return np.ascontiguousarray(array, dtype=np.uint8).reshape(-1, *shape)


def load_classifier(folder: Path) -> Classifier:
    config = recorded_config(yaml.safe_load((folder / CONFIG_FILE).read_text()))
    signature = signatures.read(folder, config.data.name)
    shape, num_classes = signature.image_shape, signature.num_classes
    state = load_file(folder / WEIGHTS_FILE)
    # Before a model is built: a configuration of a shared store may ask for one of any size.
    asked = weight_shapes(config.model, image_shape=shape, num_classes=num_classes)
    if {name: tensor.shape for name, tensor in state.items()} != asked:
        raise ValueError(f"{WEIGHTS_FILE} is of another model than {CONFIG_FILE} and {MODEL_FILE}")
    model = build_model(config.model, config.seed, image_shape=shape, num_classes=num_classes)
    model.load_state_dict(state)
    return Classifier(model, config, signature)
