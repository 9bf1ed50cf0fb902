"""Records with the answer that each must get, in the hands of digitlab and of a second verifier."""

import ast
import csv
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from torch import Tensor

from digitlab.config import fingerprint
from digitlab.config.composition import compose
from digitlab.data import splits
from digitlab.data.sources import read as read_data
from digitlab.randomness import derive_seed
from digitlab.reproduction import changes
from digitlab.reproduction.verdict import judge
from digitlab.runs.document import Document, RefusedDocument, parse
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from digitlab.training.loop import epoch_order
from tests.conformance import verifier
from tests.support.cli import CHECKOUT, Cli

FOLDER = Path(__file__).resolve().parent
RECORDS = FOLDER / "records"
PAGE = (CHECKOUT / "docs" / "record.md").read_text()
TABLE: dict[str, list[dict[str, str]]] = json.loads((FOLDER / "expectations.json").read_text())
PUBLISHED = sorted(CHECKOUT.glob("experiments/*/records/*.json"))


def of_file(entry: dict[str, str]) -> str:
    return entry.get("file") or f"{entry['recorded']}, {entry['repeated']}"


def content(file: str) -> bytes:
    return (RECORDS / file).read_bytes()


def test_the_table_names_every_file() -> None:
    files = {file.relative_to(RECORDS).as_posix() for file in RECORDS.rglob("*.json")}
    assert files == {entry["file"] for entry in TABLE["records"]}
    assert {entry["answer"] for entry in TABLE["records"]} == {"read", "refused", "cannot"}


@pytest.mark.parametrize("entry", TABLE["records"], ids=of_file)
def test_a_record_is_read_or_refused_by_both(entry: dict[str, str]) -> None:
    raw = content(entry["file"])
    if entry["answer"] == "refused":
        with pytest.raises(RefusedDocument) as refused:
            parse(raw)
        assert any(entry["says"] in problem for problem in refused.value.problems)
        with pytest.raises(verifier.RefusedError):
            verifier.read(raw)
        return
    document, values = parse(raw), verifier.read(raw)
    assert document.config == values["config"]
    assert verifier.source_digest(document.code.files) == document.code.source
    has_result = bool(document.trace and document.trace.weights)
    assert verifier.has_result(values) == has_result
    assert has_result or entry["answer"] == "cannot"


@pytest.mark.parametrize("pair", TABLE["pairs"], ids=of_file)
def test_the_verdict_on_two_records_is_that_of_both(pair: dict[str, str]) -> None:
    recorded, repeated = content(pair["recorded"]), content(pair["repeated"])
    kind, cause = verifier.judge(verifier.read(recorded), verifier.read(repeated))
    assert (kind, pair["cause"]) == (pair["verdict"], cause)
    if kind != "CANNOT":  # which digitlab says before it repeats a run
        verdict = judge(parse(recorded), parse(repeated))
        assert verdict.kind == pair["verdict"]
        assert verdict.cause.startswith(pair["cause"])


@pytest.mark.fault("F22", "F24", "F26")
def test_the_command_says_cannot_of_what_is_refused_or_asks_too_much(digitlab: Cli) -> None:
    for entry in TABLE["records"]:
        if entry["answer"] == "read":
            continue
        told = digitlab("reproduce", str(RECORDS / entry["file"]))
        assert (told.code, told.out[:6]) == (5, "CANNOT"), entry["file"]
        is_record = content(entry["file"])[:1] == b"{"
        assert entry["says"] in told.out or not is_record, entry["file"]
        assert "Traceback" not in told.out + told.err


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: f"{file.parents[1].name}/{file.name}")
def test_a_published_record_is_judged_alike(file: Path) -> None:
    native = file.with_name(file.name.replace(".portable", ""))
    recorded, repeated = native.read_bytes(), file.read_bytes()
    kind, cause = verifier.judge(verifier.read(recorded), verifier.read(repeated))
    verdict = judge(parse(recorded), parse(repeated))
    assert (verdict.kind, verdict.cause[: len(cause)]) == (kind, cause)
    assert verifier.source_digest(parse(repeated).code.files) == parse(repeated).code.source


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that was just made, with two epochs of several steps."""
    from digitlab import cli

    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITLAB_HOME", str(folder))
        (folder / "conf").symlink_to(CHECKOUT / "conf")
        cli.main(["train", "model=cnn", "epochs=2", "batch_size=200", "record.plots=never"])
        run = RunStore(resolve_uri(None)).runs()[0]
        cli.main(["export", run.run_id, str(folder / "run.zip")])
    with zipfile.ZipFile(folder / "run.zip") as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.fixture
def made(archive: dict[str, bytes]) -> Document:
    return parse(archive["record.json"])


def test_every_digest_over_the_files_of_a_run_is_computed_again(
    archive: dict[str, bytes], made: Document
) -> None:
    values = verifier.read(archive["record.json"])
    trace, code = values["trace"], values["code"]
    assert code["source"] == verifier.source_digest(code["files"])
    package = CHECKOUT / "src" / "digitlab"
    files = {f.relative_to(package).as_posix(): f.read_bytes() for f in package.rglob("*.py")}
    assert code["files"] == {name: verifier.file_digest(source) for name, source in files.items()}
    assert trace["weights"] == verifier.weights_digest(archive["weights.safetensors"])
    answers = pyarrow.parquet.read_table(io.BytesIO(archive["predictions.parquet"]))
    classes = answers["prediction"].to_pylist()
    assert len(classes) == trace["num_test_images"]
    assert trace["predictions"] == verifier.predictions_digest(classes)
    rows = list(csv.DictReader(io.StringIO(archive["metrics.csv"].decode())))
    assert len(rows) == len(trace["epochs"]) == made.config["epochs"]
    for row, epoch in zip(rows, trace["epochs"], strict=True):
        assert {name: float(row[name]).hex() for name in epoch} == epoch
    assert values["seed"] == values["config"]["seed"]


def test_every_digest_over_images_and_order_is_computed_again(made: Document) -> None:
    config = compose([f"data.split_seed={made.config['data']['split_seed']}"])
    data, _ = read_data(config.data)
    digests = {}
    for split, (images, labels) in (("train", data.train), ("test", data.test)):
        digests[f"{split}_images"] = verifier.array_digest(images.shape, images.tobytes())
        digests[f"{split}_labels"] = verifier.array_digest(labels.shape, bytes(labels.tolist()))
    num_train, num_held_out = len(data.train[1]), made.config["data"]["validation_size"]
    drawn = shuffled(num_train, derive_seed(made.config["data"]["split_seed"], "validation split"))
    digests["validation_indices"] = verifier.indices_digest(drawn[:num_held_out].tolist())
    assert digests == made.data
    assert made.trace is not None
    for epoch, order in enumerate(made.trace.orders, start=1):
        indices = epoch_order(num_train - num_held_out, made.seed, epoch).tolist()
        assert order == verifier.indices_digest(indices)


def shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def test_data_of_a_user_have_names_and_wider_labels(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (40, 9, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(40) % 4)
    config = compose(["data=npz", f"data.path='{tmp_path / 'own.npz'}'", "data.validation_size=4"])
    data, digests = read_data(config.data)
    assert digests["class_names"] == verifier.class_names_digest(data.class_names)
    for split, (pixels, labels) in (("train", data.train), ("test", data.test)):
        assert digests[f"{split}_images"] == verifier.array_digest(pixels.shape, pixels.tobytes())
        wide = np.asarray(labels, dtype="<i8").tobytes()
        assert digests[f"{split}_labels"] == verifier.array_digest(labels.shape, wide)
    assert splits.load(config.data).image_shape == (3, 9, 8)


def test_the_lists_of_the_page_are_those_of_the_code_and_of_the_verifier() -> None:
    without = {*fingerprint.WITHOUT_NUMBERS, *fingerprint.FLAT_WITHOUT_NUMBERS}
    assert set(verifier.WITHOUT_NUMBERS) == without
    assert set(verifier.DECIDING) == set(fingerprint.DECIDING)
    assert set(verifier.WITHOUT_EFFECT) == set(fingerprint.WITHOUT_EFFECT)
    assert set(verifier.OF_ROUNDING) == set(changes.OF_ARITHMETIC)
    for name in (*without, *fingerprint.DECIDING, *fingerprint.WITHOUT_EFFECT, *changes.OF_ARITHMETIC):
        assert f"`{name}`" in PAGE, name


def test_the_page_names_every_field() -> None:
    values: dict[str, Any] = json.loads(content("good/own.json"))
    for group in (values, values["code"], values["trace"]):
        for name in group:
            assert f"\n| {name} | " in PAGE, name
    for kind in (verifier.RECORD, verifier.CODE, verifier.TRACE):
        assert all(f"\n| {name} | " in PAGE for name in kind)


def test_the_second_verifier_knows_nothing_of_digitlab() -> None:
    tree = ast.parse((FOLDER / "verifier.py").read_text())
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
