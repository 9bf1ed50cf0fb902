"""Exported models against the models themselves, in onnxruntime, at batch sizes never exported."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from digitlab.config.composition import compose
from digitlab.errors import DigitlabError, UsageError
from digitlab.inference import onnx_export
from digitlab.inference.trained_model import TrainedModel
from digitlab.models.build import build_model
from digitlab.models.saved import Classifier
from digitlab.models.signature import Signature
from tests.support.cli import Cli

onnxruntime = pytest.importorskip("onnxruntime", reason="the optional extra `onnx` is not installed")


def model(
    *overrides: str, shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10
) -> TrainedModel:
    config = compose(overrides)
    network = build_model(config.model, config.seed, image_shape=shape, num_classes=num_classes)
    signature = Signature(image_shape=shape, class_names=[f"class {c}" for c in range(num_classes)])
    classifier = Classifier(network, config, signature)
    return TrainedModel(name="m", run_id="f" * 32, classifier=classifier)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=logistic_regression",),
        ("model=cnn", "data.mean=0.25", "data.std=0.5"),
        ("model=cnn", "model.channels_1=3", "model.channels_2=5", "model.hidden_units=7"),
    ],
)
def test_it_answers_as_the_model_in_batches_of_any_size(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    trained = model(*overrides)
    file = tmp_path / "model.onnx"
    assert onnx_export.export_onnx(trained, file) < 1e-5
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(1)
    for size in (1, 3, 1000):
        images = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        (found,) = session.run(None, {"images": images})
        assert found.shape == (size, 10)
        np.testing.assert_allclose(found, trained.classifier.predict(images), atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["digitlab.run"] == "f" * 32
    assert {path.name for path in tmp_path.iterdir()} == {"home", "model.onnx"}


@pytest.mark.parametrize("name", ["logistic_regression", "cnn"])
def test_images_in_colour_and_classes_of_any_number_are_exported(name: str, tmp_path: Path) -> None:
    trained = model(f"model={name}", shape=(3, 32, 48), num_classes=17)
    file = tmp_path / "model.onnx"
    assert onnx_export.export_onnx(trained, file) < 1e-5
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    (found,) = session.run(None, {"images": images})
    assert found.shape == (5, 17)
    np.testing.assert_allclose(found, trained.classifier.predict(images), atol=1e-5)


def test_a_file_that_computes_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, other = model("model=logistic_regression"), model("model=logistic_regression", "seed=1")
    write = onnx_export._write
    monkeypatch.setattr(onnx_export, "_write", lambda _, file: write(other, file))
    (tmp_path / "model.onnx").write_text("the earlier one")
    with pytest.raises(DigitlabError, match="differs from the trained one by"):
        onnx_export.export_onnx(trained, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "the earlier one"
    assert {path.name for path in tmp_path.iterdir()} == {"home", "model.onnx"}


def test_without_the_packages_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install onnx onnxruntime onnxscript"):
        onnx_export.export_onnx(model("model=cnn"), tmp_path / "model.onnx")


def test_a_folder_that_cannot_be_written_to_is_told() -> None:
    with pytest.raises(UsageError, match=r"/proc/model.onnx cannot be written: No such file"):
        onnx_export.export_onnx(model("model=logistic_regression"), Path("/proc/model.onnx"))


def test_the_command_line_exports_a_run(digitlab: Cli, tmp_path: Path) -> None:
    digitlab("train", "epochs=1", "study=s")
    (run,) = json.loads(digitlab("runs", "--json").out)
    file = tmp_path / "model.onnx"
    result = digitlab("export-onnx", run["run_id"][:8], str(file))
    assert result.code == 0
    assert result.out.startswith(f"wrote {file} (")
    assert "onnxruntime agrees with the model to" in result.out
    assert digitlab("export-onnx", run["run_id"], str(tmp_path / "gone" / "x.onnx")).code == 2
