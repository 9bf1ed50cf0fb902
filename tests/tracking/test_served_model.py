"""The model in MLflow's format: loads, scores as recorded, holds no pickle."""

import json
from pathlib import Path

import numpy as np
import pytest

from digitlab.config.composition import compose
from digitlab.data.splits import load
from digitlab.tracking.connection.location import resolve_uri
from tests.support.cli import Cli


@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_the_logged_model_gives_the_recorded_test_accuracy(
    model: str, digitlab: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    overrides = [f"model={model}", "epochs=2", "record.mlflow_model=true"]
    assert digitlab("train", *overrides).code == 0
    (run,) = json.loads(digitlab("runs", "--json").out)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", resolve_uri(None))
    loaded = mlflow.pyfunc.load_model(f"runs:/{run['run_id']}/model")
    test = load(compose(overrides).data, home).test
    probabilities = loaded.predict(test.images.numpy())
    assert probabilities.shape == (360, 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    accuracy = (probabilities.argmax(1) == test.labels.numpy()).mean()
    assert accuracy == run["metrics"]["test/accuracy"]
    with pytest.raises(mlflow.exceptions.MlflowException):
        loaded.predict(np.zeros((2, 5), dtype=np.uint8))


@pytest.mark.fault("F25")
def test_the_logged_model_holds_no_pickle_and_pins_its_requirements(digitlab: Cli, home: Path) -> None:
    digitlab("train", "epochs=1", "record.mlflow_model=true", "study=s")
    (folder,) = (home / "mlruns" / "artifacts" / "s").glob("*/artifacts/model")
    suffixes = {file.suffix for file in folder.rglob("*") if file.is_file()}
    texts = {"", ".py", ".yaml", ".json", ".txt", ".typed", ".html", ".j2", ".template"}
    assert suffixes <= {*texts, ".safetensors"}
    assert "torch==" in (folder / "requirements.txt").read_text()
