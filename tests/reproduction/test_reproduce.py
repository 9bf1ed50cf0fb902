"""`digitlab reproduce`: IDENTICAL where nothing changed, and the true cause where something did."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from digitlab.config import project
from digitlab.config.checking import set_leaf
from digitlab.config.schema import Config
from digitlab.data.splits import Dataset, load
from digitlab.errors import DataError
from digitlab.models.products import TORCH
from digitlab.reproduction.archive import Recorded
from digitlab.reproduction.changes import input_changes
from digitlab.reproduction.demands import excess
from digitlab.reproduction.recorded_code import recorded_code
from digitlab.reproduction.reproduce import _environment
from digitlab.reproduction.verdict import Cannot, judge, trace_differences
from digitlab.results.compare.differences import arithmetic_differences
from digitlab.runs import document as documents
from digitlab.runs import pictures
from digitlab.runs.describe import request_run
from digitlab.runs.document import Document, config_digest
from digitlab.runs.experiment import Session, run_experiment
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.workers.trial import TrialWatch
from digitlab.text import yaml_text
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.names import RECORD_FILE
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun
from digitlab.training import loop, products
from digitlab.training.arithmetic import PRODUCT_VARIABLE
from tests.support.cli import CHECKOUT, Cli, artifact, files_end_at
from tests.support.processes import wait_for

QUICK = ("epochs=2", "record.plots=never")


def newest() -> StoredRun:
    return RunStore(resolve_uri(None)).runs()[0]


def train(digitlab: Cli, *overrides: str) -> StoredRun:
    assert digitlab("train", *QUICK, *overrides).code == 0
    return newest()


class Silent(TrialWatch):
    """A watch that nobody listens to."""

    def __init__(self) -> None:
        self.history = {}
        self.run_id = None

    def after_epoch(self, report: object) -> None:
        """Nothing to say."""


def trained(config: Config, dataset: Dataset | None = None) -> Document:
    """What a run of this process leaves."""
    with Interrupts() as interrupts:
        request = request_run(config, say=print)
        if dataset:
            document = dataclasses.replace(request.document, data=dataset.digests)
            request = dataclasses.replace(request, dataset=dataset, document=document)
        return run_experiment(request, Session(interrupts, print, Silent())).document


@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_a_run_is_reproduced_to_the_bit_in_another_process(
    model: str, digitlab: Cli, home: Path
) -> None:
    run = train(digitlab, f"model={model}", "scheduler=cosine")
    shutil.rmtree(home / "conf" / "optimizer")  # nothing of it is read
    result = digitlab("reproduce", run.run_id)
    assert result.code == 0, result.out + result.err
    assert "the result must be IDENTICAL" in result.err
    assert result.out.startswith("IDENTICAL\n")
    again = newest()
    assert again.run_id != run.run_id
    assert again.tags["digitlab.reproduces"] == run.run_id
    assert again.tags["digitlab.verdict"] == "IDENTICAL"
    assert again.tags["digitlab.weights"] == run.tags["digitlab.weights"]
    assert again.metrics["test/loss"] == run.metrics["test/loss"]
    assert again.status == "FINISHED"


def test_another_number_of_threads_is_the_same_computation_with_other_rounding(digitlab: Cli) -> None:
    run = train(digitlab, "model=cnn", "optimizer.learning_rate=1e-4")
    result = digitlab("reproduce", run.run_id, "--threads", "2", "--json")
    verdict = json.loads(result.out)
    assert result.code == verdict["exit_code"] == 3, result.out
    assert verdict["kind"] == "SAME COMPUTATION, OTHER ROUNDING"
    assert "threads is 2, was 1" in verdict["details"]


@pytest.mark.parametrize("product", ["torch.mm", "onednn"])
def test_a_record_is_reproduced_with_what_multiplied_for_it(
    product: str, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the fastest is here, or the environment asks for."""
    monkeypatch.setenv(PRODUCT_VARIABLE, product)
    run = train(digitlab, "model=logistic_regression", "device=cpu")
    monkeypatch.setenv(PRODUCT_VARIABLE, "onednn-forward")
    result = digitlab("reproduce", run.run_id)
    assert result.out.startswith("IDENTICAL\n"), result.out + result.err


def test_a_product_that_is_not_here_is_other_rounding(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(*QUICK, "model=logistic_regression", "device=cpu")
    monkeypatch.setenv(PRODUCT_VARIABLE, "onednn")
    recorded = trained(config)
    monkeypatch.setattr(products, "is_available", lambda product: product is TORCH)
    verdict = judge(recorded, trained(config))
    assert verdict.kind == "SAME COMPUTATION, OTHER ROUNDING"
    assert "product is torch.mm, was onednn" in verdict.details


def test_a_record_that_names_no_product_is_of_torch(make_config: Callable[..., Config]) -> None:
    today = trained(make_config(*QUICK, "model=logistic_regression"))
    named = {name: value for name, value in today.arithmetic.items() if name != "product"}
    before = dataclasses.replace(today, arithmetic=named)
    assert _environment(before, "native")[PRODUCT_VARIABLE] == "torch.mm"
    assert arithmetic_differences(before, today) == []


CHANGES = {
    "a learning rate 1 % off": (
        ["optimizer.learning_rate=0.00101"],
        "optimizer.learning_rate is 0.00101",
    ),
    "a batch of 63": (["batch_size=63"], "batch_size is 63, was 64"),
    "another seed": (["seed=1"], "seed is 1, was 0"),
    "another split": (["data.split_seed=1"], "data.split_seed is 1, was 0"),
}


@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
@pytest.mark.parametrize("change", CHANGES)
def test_another_configuration_is_different_even_where_rounding_would_excuse_it(
    model: str, change: str, make_config: Callable[..., Config]
) -> None:
    overrides, cause = CHANGES[change]
    recorded = trained(make_config(*QUICK, f"model={model}"))
    repeated = trained(make_config(*QUICK, f"model={model}", *overrides))
    verdict = judge(recorded, repeated)
    assert verdict.kind == "DIFFERENT"
    assert cause in verdict.cause
    excused = dataclasses.replace(  # the same result under the recorded inputs, and other arithmetic
        repeated,
        config=recorded.config,
        data=recorded.data,
        arithmetic=recorded.arithmetic | {"threads": "2"},
    )
    assert judge(recorded, excused).kind == "DIFFERENT"


def by_other_code(
    document: Document, *files: str, losses_off: float = 0.0, **arithmetic: str
) -> Document:
    """The same run by code in which these files are others, its losses off by so much (relative)."""
    assert document.trace is not None
    code = dataclasses.replace(
        document.code, source="0" * 64, files=document.code.files | dict.fromkeys(files, "0" * 16)
    )
    losses = [(float.fromhex(x) * (1 + losses_off)).hex() for x in document.trace.step_losses]
    return dataclasses.replace(
        document,
        code=code,
        arithmetic=document.arithmetic | arithmetic,
        trace=dataclasses.replace(document.trace, step_losses=losses),
    )


def test_the_numbers_are_judged_before_the_code(make_config: Callable[..., Config]) -> None:
    recorded = trained(make_config(*QUICK, "model=logistic_regression"))
    undecided = by_other_code(recorded, "cli/train.py", "tracking/store.py", "a_room_long_gone/cli.py")
    assert not input_changes(recorded, by_other_code(recorded, "cli/train.py", "tracking/store.py"))
    assert [str(change) for change in input_changes(recorded, undecided)] == [
        "code: a_room_long_gone/cli.py"
    ]
    verdict = judge(recorded, by_other_code(recorded, "cli/train.py", "sweep/workers/trial.py"))
    assert (verdict.kind, verdict.details) == ("IDENTICAL", [])
    verdict = judge(recorded, by_other_code(recorded, "cli/train.py", "models/cnn.py"))
    assert (verdict.kind, verdict.details) == ("IDENTICAL", ["by other code: models/cnn.py"])

    verdict = judge(recorded, by_other_code(recorded, "models/cnn.py", losses_off=2e-7, cpu="another"))
    assert verdict.kind == "SAME COMPUTATION, OTHER ROUNDING"
    assert verdict.cause.startswith("the loss of step 1")
    details = "\n".join(verdict.details)
    assert "cpu is another" in details
    assert "differs besides, and these numbers show nothing of it: code: models/cnn.py" in details

    verdict = judge(recorded, by_other_code(recorded, "models/cnn.py", losses_off=1e-3, cpu="another"))
    assert (verdict.kind, verdict.cause) == ("DIFFERENT", "code: models/cnn.py")
    details = "\n".join(verdict.details)
    assert "it shows first in the loss of step 1" in details
    assert "rounding differs, too, but explains no such difference: cpu is another" in details
    assert "points; rounding: up to" in details

    same_arithmetic = judge(recorded, by_other_code(recorded, "models/cnn.py", losses_off=2e-7))
    assert (same_arithmetic.kind, same_arithmetic.cause) == ("DIFFERENT", "code: models/cnn.py")


def test_a_record_from_before_the_rooms_is_judged_without_naming_every_file(
    make_config: Callable[..., Config],
) -> None:
    repeated = trained(make_config(*QUICK, "model=logistic_regression"))
    files = {"training.py": "0" * 16, "models.py": "0" * 16, "cli.py": "0" * 16}
    recorded = dataclasses.replace(repeated, code=dataclasses.replace(repeated.code, files=files))
    verdict = judge(recorded, repeated)
    assert (verdict.kind, verdict.details) == ("IDENTICAL", ["by other code: all files (moved since)"])
    older = dataclasses.replace(
        recorded, code=dataclasses.replace(recorded.code, files=files | {"cli.py": "1"})
    )
    assert not input_changes(recorded, older), "cli.py decided no number then either"
    older = dataclasses.replace(
        recorded, code=dataclasses.replace(recorded.code, files=files | {"models.py": "1"})
    )
    assert [str(change) for change in input_changes(recorded, older)] == ["code: models.py"]


def test_another_order_of_the_images_is_different(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(*QUICK)
    recorded = trained(config)

    def order(num_images: int, seed: int, epoch: int) -> torch.Tensor:
        return torch.randperm(num_images, generator=torch.Generator().manual_seed(epoch))

    monkeypatch.setattr(loop, "epoch_order", order)
    verdict = judge(recorded, trained(config))
    assert (verdict.kind, verdict.cause) == ("DIFFERENT", "the order of the images in epoch 1")
    assert "a promise is broken" in verdict.details[0]


def test_one_flipped_pixel_is_different(make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config(*QUICK)
    recorded = trained(config)
    dataset = load(config.data, tmp_path)
    dataset.train.images[0, 14, 14] += 1
    verdict = judge(recorded, trained(config, dataset))
    assert verdict.kind == "DIFFERENT"
    assert verdict.cause.startswith("the loss of step ")


def test_one_flipped_pixel_in_the_files_is_refused(
    digitlab: Cli, mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(mnist / "MNIST" / "raw", tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("DIGITLAB_DATA", str(tmp_path))
    assert digitlab("train", "data=mnist", "epochs=1", "batch_size=1000").code == 0
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[10_000] ^= 1
    file.write_bytes(content)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").unlink(missing_ok=True)
    result = digitlab("reproduce", newest().run_id)
    assert result.code == 5
    assert "train-images-idx3-ubyte" in result.out


def test_every_stage_of_a_trace_is_told_apart(make_config: Callable[..., Config]) -> None:
    trace = trained(make_config(*QUICK)).trace
    assert trace is not None
    other = "0" * 64
    epochs = [trace.epochs[0], trace.epochs[1] | {"validation/loss": "0x1.0p+0"}]
    stages = {
        "initial_weights": other,
        "orders": [trace.orders[0], other],
        "step_losses": [*trace.step_losses[:6], "0x1.0p+0", *trace.step_losses[7:]],
        "epochs": epochs,
        "weights": other,
        "predictions": other,
    }
    named = ["the initial weights", "the order of the images in epoch 2", "the loss of step 7: 1, was "]
    named += ["epoch 2: validation/loss is 1, was ", "the final weights", "the predictions of"]
    changed = trace
    for (field, value), start in zip(reversed(stages.items()), reversed(named), strict=True):
        changed = dataclasses.replace(changed, **{field: value})
        assert next(trace_differences(trace, changed)).startswith(start)


def test_a_variation_is_linked_and_not_judged(digitlab: Cli) -> None:
    run = train(digitlab, "model=logistic_regression")
    result = digitlab("reproduce", run.run_id, "epochs=3", "optimizer.learning_rate=5e-3")
    assert result.code == 0, result.err
    assert "no verdict" in result.out
    varied = newest()
    assert varied.tags["digitlab.varies"] == run.run_id
    assert (varied.params["epochs"], varied.params["optimizer.learning_rate"]) == ("3", "0.005")
    for override, problem in {
        "epohs=3": "unknown knob epohs; did you mean epochs?",
        "model=cnn": "a recorded group cannot be chosen anew",
        "epochs=1,2": "gives several values",
        "tracking.uri=sqlite:////tmp/o.db": "chosen with --tracking-uri URI, not tracking.uri=",
    }.items():
        refused = digitlab("reproduce", run.run_id, override)
        assert refused.code == 2
        assert problem in refused.err
    assert digitlab("reproduce", run.run_id, "epochs=0").code in (2, 5)


def test_the_process_that_repeats_a_run_stops_with_the_one_that_asked(
    digitlab: Cli, digitlab_process: Callable[..., subprocess.Popen[str]]
) -> None:
    run = train(digitlab, "model=logistic_regression")
    asked = digitlab_process("reproduce", run.run_id, "epochs=1000000", "--yes")
    wait_for(lambda: any(r.metric_lines() for r in all_records(project.records())), "it trains")
    started = psutil.Process(asked.pid).children(recursive=True)
    assert started
    asked.kill()
    wait_for(lambda: not any(process.is_running() for process in started), "none goes on", seconds=30)
    assert newest().status == "KILLED"


def test_a_configuration_in_a_file_is_trained_exactly_and_judged_only_by_a_trace(
    digitlab: Cli, tmp_path: Path
) -> None:
    run = train(digitlab, "model=logistic_regression", "study='12e34'", "run_name='a: b'")
    file = artifact(run.artifact_uri, "config.yaml")
    assert digitlab("train", "--config", str(file)).code == 0
    assert newest().tags["digitlab.weights"] == run.tags["digitlab.weights"]
    assert (newest().study, newest().name) == ("12e34", "a: b")
    judged = digitlab("reproduce", str(file))
    assert judged.code == 5
    assert "CANNOT: " in judged.out
    assert "holds no trace of a run to compare with" in judged.out
    for open_question in ("code (here: digitlab ", "data and split (here: train_images ", "arithmetic"):
        assert f"not checked: {open_question}" in judged.out
    assert "not checked: versions (here: " in judged.out
    assert f"weights {run.tags['digitlab.weights'][:12]})" in judged.out
    assert newest().tags["digitlab.weights"] == run.tags["digitlab.weights"]
    told = digitlab("reproduce", str(file), "--threads", "2", "--json")
    assert json.loads(told.out)["repeated"] == newest().run_id
    assert newest().params["threads"] == "2"
    variation = digitlab("reproduce", str(file), "seed=1", "data.root=/nowhere")
    assert (variation.code, newest().params["seed"]) == (0, "1")
    assert f"varies {file} (seed=1): no verdict on another run" in variation.out

    printed = tmp_path / "mine.yaml"
    printed.write_text(digitlab("config", "epochs=2", "run_name='null'", "data.root=/far away").out)
    varied = digitlab("train", "--config", str(printed), "epochs=1", "study=007")
    assert varied.code == 0, varied.err
    assert f"not taken from {printed}: data.root" in varied.err
    assert (newest().study, newest().name, newest().params["epochs"]) == ("007", "null", "1")


def test_a_configuration_in_a_file_is_checked_like_any_other(digitlab: Cli, tmp_path: Path) -> None:
    whole, file = digitlab("config").out, tmp_path / "mine.yaml"

    def refused(content: str, *arguments: str) -> str:
        file.write_text(content)
        result = digitlab("train", "--config", str(file), *arguments)
        assert result.code == 2, result.err
        return result.err

    wrong = refused(whole.replace("seed: 0", "seed: 010") + "foo: 1\n")
    assert f"{file}: seed must be an integer in [0, 9223372036854775808), got '010'" in wrong
    assert f"{file}: unknown knob foo" in wrong
    assert "must be a plain value" in refused(whole.replace("study: digitlab", "study: ${oc.env:HOME}"))
    assert "it lacks model, " in refused("epochs: 7\n")
    assert "model=cnn: a recorded group cannot be chosen anew" in refused(whole, "model=cnn")
    assert "must be a plain value" in refused(whole, "run_name=${oc.env:HOME}")
    assert "--config is one run" in refused(whole, "-m", "seed=0,1")
    file.write_text(whole)
    for arguments in (["model=cnn"], ["tracking.uri=sqlite:///x.db"], ["--code", "recorded"]):
        assert digitlab("reproduce", str(file), *arguments).code == 2
    assert digitlab("train", "--config", "/dev/zero").code == 2
    assert digitlab("reproduce", str(tmp_path / "nowhere.yaml")).code == 2


def test_a_configuration_that_asks_for_much_is_asked_about(digitlab: Cli, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text(digitlab("config", "epochs=1000000").out)
    refused = digitlab("reproduce", str(file))
    assert refused.code == 2
    assert "--yes runs it all the same" in refused.err


def test_the_best_of_a_study_is_handed_on_as_one_small_file(digitlab: Cli, tmp_path: Path) -> None:
    rates = ("optimizer.learning_rate=1e-5,1e-2", "seed=0,1", "epochs=1", "study=rates")
    swept = digitlab("sweep", *rates, "executor=inprocess", "sweep.name=rates_sweep")
    assert swept.code == 0, swept.err
    file = tmp_path / "best one.yaml"
    for reference in ("rates", "rates_sweep"):
        told = digitlab("export", "--best", reference, str(file))
        assert told.code == 0, told.err
        assert f"'{file}'" in told.out
        head = file.read_text().splitlines()[0]
        assert f"the best of {'study' if reference == 'rates' else 'sweep'} {reference}" in head
        assert yaml_text.read(file)["optimizer"]["learning_rate"] == 1e-2
        assert file.stat().st_size < 3000
    assert digitlab("reproduce", str(file)).code == 5
    assert digitlab("train", "--config", str(file)).code == 0
    assert newest().params["optimizer.learning_rate"] == "0.01"
    assert digitlab("export", "rates", "--best", str(tmp_path / "best.zip")).code == 0
    assert "leave --best out" in digitlab("export", "--best", newest().run_id, str(file)).err
    digitlab("train", "epochs=1", "data.validation_size=0", "study=unranked")
    assert "has a validation score" in digitlab("export", "--best", "unranked", str(file)).err


def test_what_cannot_be_reproduced_says_what_is_missing(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert digitlab("reproduce", "abcd").code == 4, "nobody who looks makes a store"
    run = train(digitlab, "model=logistic_regression")
    assert digitlab("reproduce", "abcd").code == 2
    file = artifact(run.artifact_uri, RECORD_FILE)
    whole = json.loads(file.read_text())

    def told(change: Callable[[dict[str, Any]], Any]) -> str:
        values = json.loads(json.dumps(whole))
        change(values)
        values["config_sha256"] = config_digest(values["config"])
        file.write_text(json.dumps(values))
        result = digitlab("reproduce", run.run_id)
        assert result.code == 5, result.out
        assert result.out.startswith("CANNOT: ")
        return result.out

    assert "digitlab resume" in told(lambda values: values.update(trace=None))
    assert "no GPU is usable" in told(lambda values: values.update(device="cuda"))
    assert "another version" in told(lambda values: values.update(format=99))
    assert "unknown key config_" in told(lambda values: values.update(config_=1))
    assert "_target_" in told(lambda values: values["config"].update(_target_="os.system"))
    assert "is not the one" in told(lambda values: values["config"].update(epochs=1))
    file.unlink()
    result = digitlab("reproduce", run.run_id)
    assert result.code == 5
    assert "no record.json" in result.out


class Clone:
    """A git checkout of the project as it stands here, with a home of its own."""

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        self.folder = folder
        if source:
            self.git("clone", "-q", str(source), str(folder), where=folder.parent)
            return
        for name in ("src", "conf"):
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(CHECKOUT / name, folder / name, ignore=ignored)
        for name in ("pyproject.toml", "requirements.lock", ".gitignore"):
            shutil.copy(CHECKOUT / name, folder / name)
        self.git("init", "-q")
        self.commit("first")

    def git(self, *arguments: str, where: Path | None = None) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=where or self.folder, check=True, capture_output=True, text=True
        ).stdout

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "DIGITLAB_DATA")}
        return subprocess.run(
            [sys.executable, "-m", "digitlab.cli", *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(self.folder / "src"), **environment},
        )


def test_clones_archives_and_recorded_code(digitlab: Cli, tmp_path: Path) -> None:
    first = Clone(tmp_path / "first")
    models = first.folder / "src" / "digitlab" / "models" / "cnn.py"
    clean = models.read_text()
    models.write_text(clean.replace("functional.relu(features)", "functional.gelu(features)"))
    assert models.read_text() != clean
    (first.folder / "src" / "digitlab" / "untracked.py").write_text("ANSWER = 42\n")
    trained = first.run("train", "model=cnn", "epochs=1", "study=clones", "record.plots=never")
    assert trained.returncode == 0, trained.stderr
    store = f"sqlite:///{first.folder}/mlruns/mlflow.db"
    (run,) = RunStore(store).runs()
    run_id, archive = run.run_id, tmp_path / "run.zip"
    assert digitlab("export", run_id, str(archive), "--tracking-uri", store).code == 0

    second = Clone(tmp_path / "second", first.folder)
    today = second.run("reproduce", run_id, "--tracking-uri", store)
    assert today.returncode == 4, today.stdout + today.stderr
    assert "DIFFERENT: code: models/cnn.py, untracked.py" in today.stdout
    assert re.search(r"test accuracy is \S+ %, was \S+ % \(\S+ points", today.stdout), today.stdout
    again = RunStore(store).runs()[0].run_id
    pair = f"`digitlab compare {run_id[:8]} {again[:8]}` tests these two"
    assert pair in today.stdout
    assert "then `digitlab compare OLD_SWEEP NEW_SWEEP`" in today.stdout
    for wanted, *where in ((run_id, "--tracking-uri", store), (str(archive),)):
        recorded = second.run("reproduce", wanted, *where, "--code", "recorded")
        assert recorded.returncode == 0, recorded.stdout + recorded.stderr
        assert recorded.stdout.startswith("IDENTICAL")
    assert second.git("status", "--porcelain") == ""
    assert len(second.git("worktree", "list").splitlines()) == 1

    unrelated = Clone(tmp_path / "unrelated")
    cannot = unrelated.run("reproduce", str(archive), "--code", "recorded")
    assert cannot.returncode == 5
    assert "is not in this clone" in cannot.stdout


@pytest.mark.fault("F22", "F26")
def test_an_archive_is_checked_and_nothing_of_it_is_run(digitlab: Cli, tmp_path: Path) -> None:
    run = train(digitlab, "model=logistic_regression")
    archive = tmp_path / "run.zip"
    assert digitlab("export", run.run_id, str(archive)).code == 0
    with zipfile.ZipFile(archive) as opened:
        contents = {name: opened.read(name) for name in opened.namelist()}
    sums = contents["SHA256SUMS"].decode().splitlines()
    assert {line.split("  ")[1] for line in sums} == set(contents) - {"SHA256SUMS"}
    assert all(
        hashlib.sha256(contents[name]).hexdigest() == digest
        for digest, name in (line.split("  ") for line in sums)
    )
    assert digitlab("reproduce", str(archive)).code == 0

    def summed(changed: dict[str, bytes]) -> dict[str, bytes]:
        lines = [f"{hashlib.sha256(v).hexdigest()}  {k}\n" for k, v in changed.items()]
        return changed | {"SHA256SUMS": "".join(lines).encode()}

    def refused(changed: dict[str, bytes]) -> str:
        file = tmp_path / "changed.zip"
        with zipfile.ZipFile(file, "w") as writer:
            writer.comment = run.run_id.encode()
            for name, content in changed.items():
                writer.writestr(name, content)
        result = digitlab("reproduce", str(file))
        assert result.code == 5, result.out
        return result.out

    assert "is damaged" in refused(contents | {"metrics.csv": b"epoch\n"})
    assert "lacks weights.safetensors" in refused(
        {k: v for k, v in contents.items() if k != "weights.safetensors"}
    )
    assert "which no archive of a run does" in refused(contents | {"../../evil.py": b"1"})
    values = json.loads(contents["record.json"])
    values["config"]["epohs"] = 1
    values["config_sha256"] = config_digest(values["config"])
    forged = {
        "record.json": json.dumps(values).encode(),
        "config.yaml": contents["config.yaml"] + b"epohs: 1\n",
    }
    told = refused(summed(contents | forged))
    assert "does not fit today's schema (unknown knob epohs; did you mean epochs?)" in told
    assert "try --code recorded" in told
    (tmp_path / "text.zip").write_text("no archive")
    assert digitlab("reproduce", str(tmp_path / "text.zip")).code == 5


RENAME = """diff --git a/Makefile b/src/made.py
similarity index 100%
rename from Makefile
rename to src/made.py
"""
NEW = """diff --git {0} {1}
new file mode 100644
--- /dev/null
+++ {1}
@@ -0,0 +1 @@
+x
"""
PATCHES = {
    RENAME: "the patch changes 'Makefile'",
    NEW.format('"a/x\\tsrc/new.py"', '"b/x\\tsrc/new.py"'): "the patch changes 'x\\tsrc/new.py'",
    NEW.format("a/Makefile2", "b/Makefile2"): "the patch changes 'Makefile2'",
    NEW.format("a/../x", "b/../x"): "the patch does not apply",
    NEW.format("a/.git/hooks/x", "b/.git/hooks/x"): "the patch does not apply",
    "no patch": "the patch does not apply",
}


@pytest.fixture
def with_patch(
    tmp_path: Path, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Recorded]:
    """A run of a small checkout's commit and a patch."""
    clone = Clone(tmp_path / "clone")
    (clone.folder / "Makefile").write_text("all:\n")
    clone.commit("second")
    monkeypatch.setattr("digitlab.reproduction.recorded_code.CHECKOUT", clone.folder)
    document = trained(make_config(*QUICK))

    def make(patch: str) -> Recorded:
        digest = hashlib.sha256(patch.encode()).hexdigest()
        commit = clone.git("rev-parse", "HEAD").strip()
        code = dataclasses.replace(document.code, commit=commit, patch=digest)
        return Recorded(dataclasses.replace(document, code=code), patch.encode(), "0" * 32, "")

    return make


def test_a_patch_that_changes_anything_but_the_code_is_refused(
    with_patch: Callable[[str], Recorded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patch, told in PATCHES.items():
        with pytest.raises(Cannot) as refused, recorded_code(with_patch(patch)):
            pass
        assert told in str(refused.value), patch
    with recorded_code(with_patch(NEW.format("a/src/größe.py", "b/src/größe.py"))) as folder:
        assert (folder / "src" / "größe.py").read_text() == "x\n"
    assert not folder.exists()
    recorded = with_patch(RENAME)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Cannot, match="it takes git"), recorded_code(recorded):
        pass


def test_a_bare_document_is_enough_to_judge_by(
    digitlab: Cli, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(digitlab)
    file = tmp_path / "logistic.json"
    file.write_bytes(RunStore(resolve_uri(None)).content(run, "record.json"))
    shutil.copytree(home / "conf", tmp_path / "elsewhere" / "conf")
    monkeypatch.setenv("DIGITLAB_HOME", str(tmp_path / "elsewhere"))
    result = digitlab("reproduce", str(file))
    assert result.code == 0, result.out + result.err
    assert result.out.startswith("IDENTICAL\n")
    of_file = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"again {of_file[:8]}: IDENTICAL" in digitlab("runs").out
    file.write_text(file.read_text().replace('"learning_rate": 0.001', '"learning_rate": 0.002'))
    refused = digitlab("reproduce", str(file))
    assert refused.code == 5
    assert "config_sha256 is not that of config" in refused.out


def as_file(document: Document, file: Path, **knobs: Any) -> str:
    """With other knobs, as somebody would write it who wants to be believed."""
    config = json.loads(json.dumps(document.config))
    for path, value in knobs.items():
        assert set_leaf(config, path, value)
    changed = dataclasses.replace(document, config=config, config_sha256=config_digest(config))
    file.write_text(documents.dump(changed))
    return str(file)


def test_a_record_that_asks_for_more_than_its_trace_shows_is_asked_about(
    digitlab: Cli, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    recorded = trained(make_config(*QUICK, "model=cnn"))
    huge = dict.fromkeys(("model.channels_1", "model.channels_2", "model.hidden_units"), 4096)
    for knobs, told in (
        ({"epochs": 1_000_000}, "it asks for 1,000,000 epochs though its trace has 2: up to about "),
        ({"epochs": 9, "early_stopping.patience": 2}, "it asks for 9 epochs though its trace has 2"),
        (huge, "GB of memory"),
    ):
        result = digitlab("reproduce", as_file(recorded, tmp_path / "record.json", **knobs))
        assert result.code == 5
        assert told in result.out
        assert "--yes runs it all the same" in result.out
    file = as_file(recorded, tmp_path / "record.json", epochs=3)
    result = digitlab("reproduce", file, "--yes")
    assert result.code == 4, result.out
    assert result.out.startswith("DIFFERENT: the order of the images in epoch 3")


def test_what_the_machine_refuses_to_the_repetition_is_told(
    digitlab: Cli, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    file = as_file(trained(make_config(*QUICK, "model=cnn")), tmp_path / "record.json")
    with files_end_at(70_000):  # a CNN's weights are longer
        result = digitlab("reproduce", file)
    assert result.code == 5
    assert result.out.startswith("CANNOT: ")
    assert "File too large" in result.out


def test_what_a_trace_shows_is_not_asked_about(make_config: Callable[..., Config]) -> None:
    config = make_config(*QUICK)
    trace = trained(config).trace
    assert excess(config, trace) is None
    stopped = make_config("epochs=1000", "early_stopping.patience=1")
    assert excess(stopped, trace) is None, "it may have stopped early"
    assert "998" not in str(excess(dataclasses.replace(config, epochs=998), None)), "the user's own"


def test_a_record_says_nothing_about_places_here(
    digitlab: Cli, make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, named = tmp_path / "own", tmp_path / "named"
    (own / "MNIST" / "raw").mkdir(parents=True)
    (own / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").touch()  # incomplete: nothing is downloaded
    named.mkdir()
    monkeypatch.setenv("DIGITLAB_DATA", str(own))
    recorded = trained(make_config(*QUICK, f"data.root={named}"))
    file = as_file(recorded, tmp_path / "record.json", **{"data.name": "mnist"})
    result = digitlab("reproduce", file)
    assert result.code == 5
    assert f"{own / 'MNIST' / 'raw'}: train-images-idx3-ubyte" in result.out
    assert f"its data lay in {named}, and are looked for in {own}: data.root= names" in result.err
    assert list(named.iterdir()) == []
    run = SimpleNamespace(params={"data.name": "mnist", "data.root": str(named)})
    with pytest.raises(DataError, match=re.escape(f"the run had its data in {named}")):
        pictures.tested_images(run, None)  # type: ignore[arg-type]
    assert list(named.iterdir()) == []
    file = as_file(recorded, tmp_path / "record.json")
    result = digitlab("reproduce", file, f"data.root={named}")
    assert result.out.startswith("IDENTICAL"), "where the data lie makes it no variation"


def test_a_bare_document_whose_code_takes_a_patch_says_so(digitlab: Cli, tmp_path: Path) -> None:
    run = train(digitlab)
    file = tmp_path / "record.json"
    found = json.loads(RunStore(resolve_uri(None)).content(run, "record.json"))
    found["code"] |= {"commit": "0" * 40, "dirty": "true", "patch": "a" * 64}
    file.write_text(json.dumps(found))
    result = digitlab("reproduce", str(file), "--code", "recorded")
    assert result.code == 5
    assert "the patch with what was not committed is missing" in result.out
    assert "leave out --code recorded" in result.out


@pytest.mark.fault("F23", "F25")
def test_nothing_unpickles(digitlab: Cli, tmp_path: Path) -> None:
    """Hydra's rerun of a pickled job cannot be reached, and MLflow does not unpickle here."""
    (tmp_path / "config.pickle").write_bytes(b"cposix\nsystem\n(S'touch evil'\ntR.")
    for command in ("train", "sweep"):
        for flag in ("--experimental-rerun", "--experimental-rerun=config.pickle"):
            refused = digitlab(command, flag, str(tmp_path / "config.pickle"))
            assert refused.code == 2
    assert not (Path.cwd() / "evil").exists()
    train(digitlab, "model=logistic_regression")
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
