"""`digitlab export-onnx`: a trained model as one ONNX file that needs nothing of digitlab.

Pixels go in and probabilities come out, so that no user of the file can forget the normalisation.
"""

import contextlib
import copy
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from digitlab.errors import DigitlabError, UsageError
from digitlab.inference.trained_model import TrainedModel

NEEDED = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-5  # of a probability
INPUT, OUTPUT = "images", "probabilities"
OPSET = 18
CHECKED = (1, 2, 7, 100)  # sizes of batches


class PixelsToProbabilities(nn.Module):
    """uint8 (N, H, W), or (N, H, W, 3) in colour, 0 black to 255 -> probabilities (N, C)."""

    def __init__(self, model: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, mean, std

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.to(torch.float32).div(255).sub(self.mean).div(self.std)
        channels_first = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2)
        logits: Tensor = self.model(channels_first)
        return logits.softmax(1)


def export_onnx(trained: TrainedModel, file: Path) -> float:
    """Write and check it; returns the largest difference of a probability. Nothing is left otherwise.

    Raises:
        UsageError: the optional packages are missing, or the folder is, or it cannot be written to.
        DigitlabError: what was exported computes something else than the model.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(f"ONNX needs {', '.join(missing)}: pip install {' '.join(missing)}")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{file}: there is no such folder")
    try:
        return _write_checked(trained, file)
    except OSError as error:  # no permission, a full disk
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from None


def _write_checked(trained: TrainedModel, file: Path) -> float:
    with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=".onnx-") as scratch:
        written = Path(scratch) / "model.onnx"
        _write(trained, written)
        difference = _largest_difference(trained, written)
        if not difference <= TOLERANCE:
            raise DigitlabError(
                f"the exported model differs from the trained one by {difference:.1e}, more than "
                f"{TOLERANCE:.0e}: {file} was not written"
            )
        written.replace(file)
    return difference


def _write(trained: TrainedModel, file: Path) -> None:
    data = trained.classifier.config.data
    # A copy has weights with memory of their own, which the exporter takes to be all there is of it.
    model = copy.deepcopy(trained.classifier.model)
    module = PixelsToProbabilities(model, data.mean, data.std).eval()
    with _silence():
        program = torch.onnx.export(
            module,
            (torch.zeros((2, *trained.signature.picture_shape), dtype=torch.uint8),),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("N")}},
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None, "the exporter by torch.export returns its program"
        program.model.metadata_props["digitlab.run"] = trained.run_id
        program.save(file, external_data=False)


def _largest_difference(trained: TrainedModel, file: Path) -> float:
    """On random images, in batches of several sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    found = []
    for size in CHECKED:
        images = generator.integers(0, 256, (size, *trained.signature.picture_shape), dtype=np.uint8)
        images[: size // 2] //= 8  # nearly black: what most of a digit is
        (answer,) = session.run([OUTPUT], {INPUT: images})
        expected: npt.NDArray[np.float32] = trained.classifier.predict(images)
        found.append(float(np.abs(answer - expected).max()))
    return max(found)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter tells its steps on standard output, and warns of its own deprecated calls."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
