"""`digitlab predict` and `promote`: recorded predictions again, from files and from the registry."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from digitlab.data.files import read_verified
from digitlab.errors import UsageError
from digitlab.inference import predict
from digitlab.inference.normalising import as_it_is
from digitlab.inference.preparation import prepared
from digitlab.models.saved import Classifier, as_images
from digitlab.models.signature import Signature, of_earlier
from tests.support.backgrounds import BACKGROUNDS, side_by_side
from tests.support.cli import Cli, slow
from tests.support.servers import free_port

QUICK = ("epochs=2", "study=s")


def trained(digitlab: Cli, *overrides: str) -> str:
    assert digitlab("train", *QUICK, *overrides).code == 0
    run_id: str = json.loads(digitlab("runs", "--json").out)[0]["run_id"]
    return run_id


def recorded(home: Path, run_id: str) -> Any:
    (file,) = home.glob(f"mlruns/artifacts/*/{run_id}/artifacts/predictions.parquet")
    return pyarrow.parquet.read_table(file).to_pandas()


def written(images: np.ndarray, folder: Path) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:05}.png", compress_level=1)
    return folder


@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_the_test_images_as_files_give_the_recorded_predictions(
    model: str, digitlab: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "BATCH", 100)  # several batches, and a last partial one
    run_id = trained(digitlab, f"model={model}")
    folder = written(read_verified("digits", home)[0]["test"][0], home / "images")
    result = digitlab("predict", run_id[:8], str(folder), "--no-normalise", "--json")
    assert result.code == 0
    found, wanted = json.loads(result.out), recorded(home, run_id)
    assert [int(one["label"]) for one in found] == wanted["prediction"].tolist()
    probabilities = np.array([list(one["probabilities"].values()) for one in found])
    np.testing.assert_allclose(probabilities, wanted[[f"p{c}" for c in range(10)]], atol=1e-6)


@slow
def test_all_of_mnist_as_files_and_drawn_otherwise(digitlab: Cli, home: Path, mnist: Path) -> None:
    """Exactly as recorded as they are; within 2 points black on white, larger, elsewhere, turned."""
    run_id = trained(digitlab, "experiment=cnn_best", "epochs=1")
    images = read_verified("mnist", mnist)[0]["test"][0]
    wanted = recorded(home, run_id)
    result = digitlab(
        "predict", run_id, str(written(images, home / "as_is")), "--no-normalise", "--json"
    )
    labels = [int(one["label"]) for one in json.loads(result.out)]
    assert labels == wanted["prediction"].tolist()

    generator = np.random.default_rng(0)
    folder = home / "drawn"
    folder.mkdir()
    for number, image in enumerate(images[:2000]):
        side = int(generator.integers(90, 300))
        larger = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        turned = larger.rotate(generator.uniform(-10, 10), Image.Resampling.BICUBIC)
        sheet = Image.new("L", (2 * side, int(1.6 * side)), 0)
        sheet.paste(turned, (int(generator.integers(0, side)), int(generator.integers(0, 0.6 * side))))
        Image.fromarray(255 - np.asarray(sheet)).save(folder / f"{number:05}.png", compress_level=1)
    drawn = json.loads(digitlab("predict", run_id, str(folder), "--json").out)
    truth = wanted["label"].to_numpy()[:2000]
    accuracy = np.mean([int(one["label"]) for one in drawn] == truth)
    assert accuracy > (np.array(labels[:2000]) == truth).mean() - 0.02


def test_what_is_refused_costs_none_of_the_others(digitlab: Cli, home: Path) -> None:
    run_id = trained(digitlab)
    image = read_verified("digits", home)[0]["test"][0][0]
    Image.fromarray(image).save(home / "good.png")
    (home / "bad.png").write_text("no image")
    (home / "evil\x1b[2J.png").write_bytes(b"")
    (home / "empty").mkdir()
    files = [str(home / name) for name in ("bad.png", "empty", "good.png", "evil\x1b[2J.png")]
    result = digitlab("predict", run_id, *files)
    assert result.code == 2
    assert len(result.out.splitlines()) == 1
    assert result.out.startswith(f"{home}/good.png  ")
    assert result.err.startswith("trained on the small embedded set")
    assert len(result.err.splitlines()) == 1 + 3
    assert "bad.png: it is no image of a kind that is read: PNG, JPEG, BMP, GIF" in result.err
    assert "\x1b" not in result.err
    found = json.loads(digitlab("predict", run_id, *files, "--json").out)
    assert [one["error"] is None for one in found] == [False, False, True, False]


def test_whatever_one_picture_leads_to_the_others_are_read(
    digitlab: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = trained(digitlab)
    folder = written(read_verified("digits", home)[0]["test"][0][:3], home / "images")

    calls: list[int] = []

    def fails_once(picture: np.ndarray, classifier: Classifier, *, as_given: bool) -> object:
        calls.append(1)
        return prepared(picture, classifier) if len(calls) != 2 else {}["no such key"]

    monkeypatch.setattr(predict, "prepared", fails_once)
    result = digitlab("predict", run_id, str(folder))
    assert (result.code, len(result.out.splitlines())) == (2, 2)
    assert "00001.png: it cannot be read: KeyError: 'no such key'" in result.err


def test_what_the_ink_was_told_from_and_what_is_in_doubt_are_said(digitlab: Cli, home: Path) -> None:
    run_id = trained(digitlab)
    digits = np.pad(read_verified("digits", home)[0]["test"][0][:9], ((0, 0), (6, 6), (6, 6)))
    folder = home / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("dark_desk", "squared_paper"):
        BACKGROUNDS[name](digits[8], generator).save(folder / f"{name}.png")
    side_by_side(digits[1], digits[2], generator).save(folder / "two.png")
    out = digitlab("predict", run_id, str(folder)).out
    desk, squared, two = re.sub("; in doubt: the model .*", "", out).splitlines()
    assert desk.endswith(")  dark ink on bright paper; what surrounds the sheet left out")
    assert squared.endswith(")  dark ink on bright paper; lines from border to border left out")
    doubt = "there are 2 shapes on it, and one digit is read"
    assert two.endswith(f")  dark ink on bright paper; in doubt: {doubt}")
    found = json.loads(digitlab("predict", run_id, str(folder), "--json").out)
    assert [one["ink"] for one in found] == ["dark ink on bright paper"] * 3
    assert [one["left_out"] for one in found] == [
        ["what surrounds the sheet"],
        ["lines from border to border"],
        [],
    ]
    of_pictures = [[d for d in one["doubts"] if not d.startswith("the model ")] for one in found]
    assert of_pictures == [[], [], [doubt]]
    assert all(one["prediction"] == one["label"] for one in found)


def test_a_reading_of_less_than_half_is_in_doubt() -> None:
    found = as_it_is(np.zeros((28, 28), np.uint8))
    sure, unsure = np.eye(10, dtype=np.float32)[3], np.full(10, 0.1, np.float32)
    assert predict.doubts(found, sure) == []
    assert predict.doubts(found, unsure) == ["the model gives its best reading 10 % only"]


def test_pictures_in_folders_named_by_class_are_scored(digitlab: Cli, home: Path) -> None:
    run_id = trained(digitlab)
    images = read_verified("digits", home)[0]["test"][0]
    wanted = recorded(home, run_id)
    (home / "test").mkdir()
    for label in range(10):
        written(images[(wanted["label"] == label).to_numpy()], home / "test" / str(label))
    arguments = (run_id, str(home / "test"), "--labels", "folder", "--no-normalise")
    right = int((wanted["label"] == wanted["prediction"]).sum())
    told = digitlab("predict", *arguments)
    assert told.code == 0
    lines = told.out.splitlines()
    assert lines[0] == f"accuracy {100 * right / 360:.2f} % ({right} of 360 right)"
    confusion = pandas.crosstab(wanted["label"], wanted["prediction"]).reindex(
        index=range(10), columns=range(10), fill_value=0
    )
    assert [line.split()[1:] for line in lines[3:13]] == confusion.astype(str).to_numpy().tolist()
    found = json.loads(digitlab("predict", *arguments, "--json").out)
    assert found["accuracy"] == pytest.approx(right / 360)
    assert found["confusion"] == confusion.to_numpy().tolist()
    assert [one["truth"] for one in found["pictures"]] == [str(n) for n in range(10) for _ in range(36)]
    shares = {one["file"]: one["probabilities"][one["truth"]] for one in found["pictures"]}
    wrong = [one["file"] for one in found["pictures"] if one["truth"] != one["prediction"]]
    assert found["worst"] == sorted(wrong, key=lambda file: shares[file])[:10]
    assert lines[14].startswith(f"  {found['worst'][0]}  read as ")

    (home / "other").mkdir()
    Image.fromarray(images[0]).save(home / "other" / "x.png")
    mixed = (run_id, str(home / "other"), str(home / "test" / "3"), *arguments[2:])
    told = digitlab("predict", *mixed)
    assert (told.code, told.out.splitlines()[0].endswith(" of 36 right)")) == (2, True)
    assert "x.png: its folder is named by none of the classes 0, 1, 2" in told.err


def test_a_picture_comes_from_standard_input(digitlab: Cli, home: Path) -> None:
    run_id = trained(digitlab)
    digit = Image.fromarray(read_verified("digits", home)[0]["test"][0][1]).resize((150, 150))
    sheet = Image.new("L", (300, 400))
    sheet.paste(digit, (60, 90))
    Image.fromarray(255 - np.asarray(sheet)).save(home / "digit.bmp")
    with (home / "digit.bmp").open("rb") as file:
        told = subprocess.run(
            [sys.executable, "-m", "digitlab.cli", "predict", run_id, "-"],
            stdin=file,
            capture_output=True,
            text=True,
        )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"-  {recorded(home, run_id)['prediction'][1]}  (")


def test_on_a_terminal_one_sees_what_the_model_saw() -> None:
    seen = np.zeros((28, 28), np.uint8)
    seen[:, 10:14] = 255
    probabilities = np.array([0.75, *[0.25 / 9] * 9], np.float32)
    reading = predict.Reading(file="x.png", found=as_it_is(seen), probabilities=probabilities)
    lines = predict._drawn(reading, [str(n) for n in range(10)]).plain.splitlines()
    assert len(lines) == 14
    assert all(line.startswith("▀" * 28) for line in lines)
    assert lines[2].endswith(f"0 {'█' * 18}{' ' * 6}  75.0 %")


def test_a_sweep_means_its_best_trial(digitlab: Cli, home: Path) -> None:
    sweep = ("optimizer.learning_rate=0.0001,0.01", "executor=inprocess")
    assert digitlab("sweep", *QUICK, *sweep).code == 0
    (found,) = json.loads(digitlab("sweeps", "--json").out)
    best = json.loads(digitlab("compare", found["id"], "--json").out)["rows"][0]["runs"][0]
    folder = written(read_verified("digits", home)[0]["test"][0][:20], home / "images")
    of_sweep = digitlab("predict", found["id"], str(folder), "--no-normalise").out
    assert of_sweep == digitlab("predict", best, str(folder), "--no-normalise").out


def test_mistakes_are_told(digitlab: Cli, home: Path) -> None:
    run_id = trained(digitlab)
    failed = digitlab("train", "epochs=1", "study=s", "optimizer=sgd", "optimizer.learning_rate=1e38")
    assert failed.code == 1
    failed_id = json.loads(digitlab("runs", "--json").out)[0]["run_id"]
    (home / "empty").mkdir()
    for arguments, message in (
        ((run_id, "gone.png"), "there is no file or folder gone.png"),
        ((run_id, str(home / "empty")), "holds no images"),
        (("s", "."), "s is a study of 2 runs: name one of them"),
        ((failed_id, "."), "is FAILED: it has left no weights.safetensors"),
        (("digits@best", "."), "no model digits@best in"),
        (("digits/x", "."), "no model digits/x in"),
    ):
        result = digitlab("predict", *arguments)
        assert (result.code, message in result.err) == (2, True), result.err
    for name, message in (
        ("a@", "an alias is"),
        ("a/b", "a model's name is"),
        ("a@v1", "an alias is"),
        ("@x", "a model's name"),
    ):
        result = digitlab("promote", run_id, name)
        assert (result.code, message in result.err) == (2, True), result.err


def test_damaged_weights_are_told(digitlab: Cli, home: Path) -> None:
    run_id, other = trained(digitlab), trained(digitlab, "seed=1")
    files = {}
    for one in (run_id, other):
        (files[one],) = home.glob(f"mlruns/artifacts/*/{one}/artifacts/weights.safetensors")
    Image.new("L", (28, 28), 255).save(home / "x.png")
    files[run_id].write_bytes(files[other].read_bytes())
    swapped = digitlab("predict", run_id, str(home / "x.png"))
    assert (swapped.code, "are not those that it recorded" in swapped.err) == (1, True)
    files[run_id].write_bytes(b"\x08")
    broken = digitlab("predict", run_id, str(home / "x.png"))
    assert (broken.code, f"the model of run {run_id[:8]} is damaged" in broken.err) == (1, True)
    files[run_id].write_bytes(files[other].read_bytes())
    config = files[run_id].parent / "config.yaml"
    huge = yaml.safe_load(config.read_text())
    cnn = yaml.safe_load((home / "conf" / "model" / "cnn.yaml").read_text())
    huge["model"] = cnn | dict.fromkeys(("channels_1", "channels_2", "hidden_units"), 4096)
    config.write_text(yaml.safe_dump(huge))
    refused = digitlab("predict", run_id, str(home / "x.png"))  # before 2.7 GB are filled
    assert "weights.safetensors is of another model than config.yaml and model.json" in refused.err


def test_promoting_registers_the_model_as_it_was_recorded(digitlab: Cli, home: Path) -> None:
    first, second = trained(digitlab), trained(digitlab, "seed=1")
    told = digitlab("promote", first[:8], "digits@champion")
    assert told.code == 0
    assert f"run {first[:8]} is version 1 of digits, champion" in told.out
    assert "is version 1 of digits" in digitlab("promote", first, "digits").out  # not registered twice
    again = digitlab("promote", second, "digits@champion").out
    assert "is version 2 of digits, champion (before: version 1)" in again
    folder = written(read_verified("digits", home)[0]["test"][0][:20], home / "images")
    for name, run_id in (("digits@champion", second), ("digits/1", first), ("digits/2", second)):
        registered = digitlab("predict", name, str(folder), "--no-normalise").out
        assert registered == digitlab("predict", run_id, str(folder), "--no-normalise").out
    wrong = digitlab("predict", "digits@nobody", str(folder))
    assert wrong.code == 2
    assert "there are digits@champion" in wrong.err
    unclear = digitlab("predict", "digits", str(folder))
    assert unclear.code == 2
    assert "digits is a registered model: say which, digits@champion" in unclear.err
    assert not list((home / "mlruns").rglob("*.pkl"))


def test_a_registered_model_is_promoted_and_shown_by_its_name(digitlab: Cli, home: Path) -> None:
    run_id = trained(digitlab)
    digitlab("promote", run_id, "digits@challenger")
    told = digitlab("promote", "digits@challenger", "digits@champion")
    assert told.out.startswith(f"run {run_id[:8]} is version 1 of digits, champion\n")
    assert f"run {run_id[:8]} is version 1 of other\n" in digitlab("promote", "digits/1", "other").out
    assert json.loads(digitlab("show", "digits@champion", "--json").out)["run_id"] == run_id
    wrong = digitlab("promote", "digits@nobody", "other")
    assert (wrong.code, "there are digits@challenger, digits@champion" in wrong.err) == (2, True)


def test_a_server_has_a_registry_too(
    digitlab: Cli, home: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    run_id = trained(digitlab)
    told = digitlab("promote", run_id, "of_a_server@champion")
    assert f"run {run_id[:8]} is version 1 of of_a_server, champion" in told.out
    assert f"MLFLOW_TRACKING_URI={server} mlflow models serve" in told.out
    folder = written(read_verified("digits", home)[0]["test"][0][:20], home / "images")
    of_run = digitlab("predict", run_id, str(folder), "--no-normalise")
    for name in ("of_a_server@champion", "of_a_server/1"):
        assert digitlab("predict", name, str(folder), "--no-normalise").out == of_run.out
    assert digitlab("predict", "of_a_server@nobody", str(folder)).code == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 5)), r"got the shape \(2, 5\)"),
        (np.zeros((28, 28)), r"got the shape \(28, 28\)"),
        (np.zeros((0, 784)), r"got the shape \(0, 784\)"),
        (np.full((1, 784), 256), "got values from 256 to 256"),
        (np.full((1, 784), -1), "got values from -1"),
        (np.full((1, 28, 28), np.nan), "got values from nan"),
        (np.full((1, 28, 28), 0.5), "got fractions: multiply"),
        ([[1, 2], [3]], "lists of different lengths"),
        ([["a"] * 784], "no numbers"),
        ({"inputs": []}, "no numbers"),
    ],
)
def test_input_that_is_no_images_is_refused(given: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        as_images(given, of_earlier("mnist"))
    assert "(N, 28, 28) or (N, 784) with integers from 0 (black) to 255" in str(caught.value)


def test_images_come_as_arrays_lists_and_rows() -> None:
    image = np.arange(784).reshape(1, 28, 28) % 256
    for given in (image, image.astype(float), image.tolist(), image.reshape(1, 784).tolist()):
        assert (as_images(given, of_earlier("mnist")) == image).all()


def test_images_in_colour_come_with_their_channels_last() -> None:
    signature = Signature(image_shape=(3, 9, 8), class_names=["left", "right"])
    images = np.arange(2 * 9 * 8 * 3).reshape(2, 9, 8, 3) % 256
    for given in (images, images.tolist(), images.reshape(2, 216)):
        assert (as_images(given, signature) == images).all()
    with pytest.raises(UsageError, match=r"shape \(N, 9, 8, 3\) or \(N, 216\) with .*full colour"):
        as_images(images.transpose(0, 3, 1, 2), signature)


@pytest.fixture
def served(digitlab: Cli, home: Path) -> Iterator[tuple[str, str]]:
    """A promoted model behind `mlflow models serve`, as README says it: its run and its address."""
    run_id = trained(digitlab)
    line = digitlab("promote", run_id, "digits@champion").out.splitlines()[-1]
    command = line.partition("serve it: ")[2]
    assert command.endswith("--port 5001")
    port = free_port()
    process = subprocess.Popen(
        f"exec env {command.removesuffix('5001')}{port}",
        shell=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=home,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(home),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/ping", process)
        yield run_id, address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)


def ask(address: str, content: object) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps(content).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_promoted_model_answers_over_http(served: tuple[str, str], home: Path) -> None:
    run_id, address = served
    images = read_verified("digits", home)[0]["test"][0][:5]
    wanted = recorded(home, run_id)[[f"p{c}" for c in range(10)]].to_numpy()[:5]
    for content in (
        {"inputs": images.tolist()},
        {"instances": images.reshape(5, 784).tolist()},
        {"dataframe_split": {"data": images.reshape(5, 784).tolist()}},
    ):
        status, answer = ask(address, content)
        assert status == 200
        np.testing.assert_allclose(answer["predictions"], wanted, atol=1e-6)
    for content in ([[1, 2]], (images / 255).tolist(), (images.astype(int) * 2).tolist()):
        status, answer = ask(address, {"inputs": content})
        assert status == 400
        assert "(N, 28, 28) or (N, 784) with integers from 0 (black) to 255" in answer["message"]


def test_a_model_that_was_not_uploaded_whole_is_made_again(digitlab: Cli, home: Path) -> None:
    run_id = trained(digitlab)
    (artifacts,) = home.glob(f"mlruns/artifacts/*/{run_id}/artifacts")
    (artifacts / "model").mkdir()
    (artifacts / "model" / "MLmodel").write_text("cut short")
    assert digitlab("promote", run_id, "digits@champion").code == 0
    Image.fromarray(read_verified("digits", home)[0]["test"][0][0]).save(home / "x.png")
    by_name = digitlab("predict", "digits@champion", str(home / "x.png"), "--no-normalise")
    by_id = digitlab("predict", run_id, str(home / "x.png"), "--no-normalise")
    assert by_name.out == by_id.out != ""


def test_a_registered_model_with_other_weights_than_its_run_recorded_is_told(
    digitlab: Cli, home: Path
) -> None:
    run_id, other = trained(digitlab), trained(digitlab, "seed=1")
    assert digitlab("promote", run_id, "digits@champion").code == 0
    (inner,) = home.glob(
        f"mlruns/artifacts/*/{run_id}/artifacts/model/data/payload/weights.safetensors"
    )
    (weights,) = home.glob(f"mlruns/artifacts/*/{other}/artifacts/weights.safetensors")
    inner.write_bytes(weights.read_bytes())
    Image.new("L", (28, 28), 255).save(home / "x.png")
    result = digitlab("predict", "digits@champion", str(home / "x.png"))
    assert (result.code, "are not those that it recorded" in result.err) == (1, True)
