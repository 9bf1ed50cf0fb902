"""Models of a user's own data: trained in colour and in another shape, they read pictures, by name."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from rich.console import Console

from digitlab.config.composition import compose
from digitlab.data.image_files import brought_to, read_picture
from digitlab.inference import predict
from digitlab.inference.scoring import LabelledReading, lines
from digitlab.inference.trained_model import load_model
from digitlab.reproduction.demands import estimate_demand
from digitlab.runs.artifacts import read_answers
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from tests.support.cli import Cli
from tests.ui.test_demo import ask, running

NAMES = ["Grün", "blue sky", "red-brick"]
PIXELS = [(40, 160, 60), (60, 90, 220), (190, 60, 40)]
WIDTH, HEIGHT = 24, 18
LINE = ("study=own", "epochs=5", "batch_size=8", "optimizer.learning_rate=0.01", "record.plots=always")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Of three classes told apart by their colour alone; the tests' files have any size and format."""
    draw, root = np.random.default_rng(0), tmp_path / "photos"
    for split, count in (("train", 24), ("test", 6)):
        for name, colour in zip(NAMES, PIXELS, strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = draw.integers(-40, 40, (HEIGHT, WIDTH, 3))
                pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return root


def trained(digitlab: Cli, photos: Path, *more: str) -> str:
    result = digitlab("train", "data=folder", f"data.path={photos}", *LINE, *more)
    assert result.code == 0, result.err
    (run,) = json.loads(digitlab("runs", "--json").out)
    return str(run["run_id"])


def test_pictures_are_read_as_the_test_split_was(digitlab: Cli, photos: Path) -> None:
    """The oracle: what the run recorded for the same files."""
    run_id = trained(digitlab, photos, "model=cnn")
    result = digitlab("predict", run_id, *(str(photos / "test" / name) for name in NAMES), "--json")
    assert result.code == 0, result.err
    store = RunStore(resolve_uri(None))
    recorded = read_answers(store.content(store.find(run_id), "predictions.parquet"))
    read = [answer["prediction"] for answer in json.loads(result.out)]
    assert read == [NAMES[c] for c in recorded.predictions]
    scored = digitlab("predict", run_id, str(photos / "test"), "--labels", "folder", "--json")
    summary = json.loads(scored.out)
    assert summary["classes"] == NAMES
    assert summary["right"] == recorded.right.sum() > 12
    assert {"confusion_matrix.png", "worst_mistakes.png"} <= {
        path for path, _ in store.artifacts(store.find(run_id))
    }


def test_pictures_of_other_sizes_are_brought_to_the_shape(digitlab: Cli, photos: Path) -> None:
    run_id = trained(digitlab, photos)
    large = photos / "large.jpg"
    Image.new("RGB", (300, 200), PIXELS[2]).save(large, quality=95)
    model = load_model(RunStore(resolve_uri(None)), run_id)
    image = brought_to(read_picture(large, "rgb"), (3, HEIGHT, WIDTH))
    expected = model.classifier.predict(image[None])[0]
    (answer,) = json.loads(digitlab("predict", run_id, str(large), "--json").out)
    assert list(answer["probabilities"]) == NAMES
    assert list(answer["probabilities"].values()) == pytest.approx(expected.tolist())
    line = digitlab("predict", run_id, str(large)).out
    assert f"{large}  {NAMES[expected.argmax()]}  (" in line
    assert f"brought to {WIDTH} x {HEIGHT} pixels" in line
    refused = digitlab("predict", run_id, str(large), "--no-normalise")
    assert refused.code == 2
    assert "a picture must be 24 x 18 pixels; it is 300 x 200" in refused.err

    drawn = predict._drawn(
        next(predict.read_files(model.classifier, [str(large)], as_given=False)), NAMES
    )
    console = Console(width=100, file=None, record=True, quiet=True)
    console.print(drawn)
    assert all(name in drawn.plain for name in NAMES)
    assert drawn.plain.splitlines()[0].startswith("▀" * WIDTH)


def test_the_demo_takes_a_chosen_picture(digitlab: Cli, photos: Path) -> None:
    model = load_model(RunStore(resolve_uri(None)), trained(digitlab, photos))
    file = photos / "test" / "red-brick" / "00.png"
    expected = model.classifier.predict(np.asarray(Image.open(file))[None])[0]
    with running(model) as port:
        (about,) = ask(port, "GET", "/models")[1]  # type: ignore[misc]
        assert about == {
            "name": model.name,
            "classes": NAMES,
            "size": [WIDTH, HEIGHT],
            "drawn": False,
        }
        status, answer = ask(port, "POST", "/predict", file.read_bytes(), Content_Type="image/png")
    assert status == 200
    (reading,) = answer["readings"]  # type: ignore[index]
    assert list(reading["probabilities"].values()) == pytest.approx(expected.tolist())
    assert reading["seen"] == np.asarray(Image.open(file)).ravel().tolist()


@pytest.mark.filterwarnings("ignore")  # MLflow's, of type hints of its own
def test_an_exported_and_a_promoted_model_answer_as_the_run(
    digitlab: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    run_id = trained(digitlab, photos, "model=logistic_regression")
    model = load_model(RunStore(resolve_uri(None)), run_id)
    images = np.random.default_rng(1).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    expected = model.classifier.predict(images)
    file = tmp_path / "model.onnx"
    assert digitlab("export-onnx", run_id, str(file)).code == 0
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-5)
    assert digitlab("promote", run_id, "colours@champion").code == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", resolve_uri(None))
    served = mlflow.pyfunc.load_model("models:/colours@champion")
    np.testing.assert_array_equal(served.predict(images), expected)
    registered = load_model(RunStore(resolve_uri(None)), "colours@champion")
    assert registered.signature.class_names == NAMES


def test_a_sweep_side_by_side_of_colour_is_that_one_by_one(digitlab: Cli, photos: Path) -> None:
    line = ("data=folder", f"data.path={photos}", "model=logistic_regression,cnn", *LINE[1:])
    found = []
    for engine in ("fused", "sequential"):
        swept = ("seed=range(3)", "data.order_seed=0", "executor=inprocess", f"study={engine}")
        result = digitlab("sweep", *line, *swept, f"engine={engine}")
        assert result.code == 0, result.err
        runs = [r for r in RunStore(resolve_uri(None)).runs(engine) if "trial" in r.tags]
        assert {r.tags["digitlab.engine"] for r in runs} == {
            "sequential" if engine == "sequential" else "fused, 3 side by side"
        }
        found.append({r.name: r.tags["digitlab.weights"] for r in runs})
    assert len(found[0]) == 6
    assert found[0] == found[1]


def test_a_run_of_an_earlier_digitlab_takes_what_it_took(
    digitlab: Cli, home: Path, tmp_path: Path
) -> None:
    digitlab("train", "model=logistic_regression", "epochs=1", "study=s")
    (run,) = json.loads(digitlab("runs", "--json").out)
    (file,) = home.glob(f"mlruns/artifacts/*/{run['run_id']}/artifacts/model.json")
    assert json.loads(file.read_text()) == {
        "image_shape": [1, 28, 28],
        "class_names": [str(digit) for digit in range(10)],
    }
    store, images = RunStore(resolve_uri(None)), np.zeros((2, 28, 28), dtype=np.uint8)
    expected = load_model(store, run["run_id"]).classifier.predict(images)
    file.unlink()
    assert (load_model(store, run["run_id"]).classifier.predict(images) == expected).all()
    assert digitlab("promote", run["run_id"], "earlier@champion").code == 0
    assert load_model(store, "earlier@champion").signature.num_classes == 10


def test_the_most_frequent_mistakes_are_told_of_many_classes() -> None:
    names = [f"c{c}" for c in range(300)]
    readings = [
        LabelledReading(file=f"{k}.png", truth=k % 3, prediction=7 if k % 3 else 0, share=0.1)
        for k in range(8)
    ]
    told = list(lines(readings, names))
    assert told[0] == "accuracy 37.50 % (3 of 8 right)"
    assert told[2:4] == ["  c1 read as c7: 3", "  c2 read as c7: 2"]


def test_what_a_record_asks_of_this_machine_is_told_for_data_of_any_size(
    digitlab: Cli, photos: Path
) -> None:
    line = ("data=folder", f"data.path={photos}", "model=cnn", "batch_size=8")
    own, large = (compose([*line, f"data.side={side}"]) for side in ("null", "256"))
    few, many = estimate_demand(own), estimate_demand(large)
    assert 100 < many.seconds / few.seconds < 200  # as the pixels: 256 * 256 / (24 * 18)
    assert many.memory > 50 * few.memory
