"""What makes a run reproducible, as a share of a run of five MNIST epochs: its trace and its canary.

Also what a checkpoint costs at the end of an epoch, with fsync. Targets are printed beside results.
"""

import contextlib
import dataclasses
import hashlib
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from digitlab.config import project
from digitlab.config.composition import compose
from digitlab.config.schema import Config
from digitlab.data.splits import Dataset, load
from digitlab.models.predict import predict
from digitlab.models.saved import weights_digest
from digitlab.runs import document as documents
from digitlab.runs.checkpoints import save_checkpoint
from digitlab.runs.describe import describe_run, identity, request_run
from digitlab.runs.experiment import Session, run_experiment
from digitlab.runs.interrupts import Interrupts
from digitlab.runs.progress import TrainingProgress
from digitlab.runs.trace import trace_of
from digitlab.tracking.names import RECORD_FILE
from digitlab.training.devices import prepare_process
from digitlab.training.evaluation import evaluate
from digitlab.training.loop import Position, paused
from digitlab.training.resumable import Resumable

ROUNDS = 3
EPOCHS = 5
MAX_SHARE, MAX_SECONDS, MAX_CHECKPOINT_SECONDS = 0.02, 0.2, 0.03

FIRST_CANARY = """
import time
import torch
from digitlab.runs import experiment
from digitlab.training import arithmetic
torch.set_num_threads(1)
torch.nn.functional.conv2d(torch.ones(1, 1, 5, 5), torch.ones(1, 1, 5, 5))  # the first use of oneDNN
started = time.perf_counter()
arithmetic.canary(threads=1, device="cpu")
print(time.perf_counter() - started)
"""


def bench_traces() -> None:
    print(f"\nseconds of a run of {EPOCHS} MNIST epochs, batch 100, and of what makes it reproducible")
    for model in ("logistic_regression", "cnn"):
        settings = [f"model={model}", "data=mnist", "batch_size=100", f"epochs={EPOCHS}"]
        config = compose([*settings, "record.plots=never"])
        device = prepare_process(config)
        dataset = load(config.data, project.data_root(None))
        training, middle = Resumable(config, dataset, device), list[Position]()
        train(training, middle)
        samples: dict[str, list[float]] = {"whole run": [], "canary": [], "trace": [], "checkpoint": []}
        with tempfile.TemporaryDirectory(dir=project.home()) as scratch:  # a disk, not memory
            shutil.copytree(project.conf(), Path(scratch) / "conf")
            for _ in range(ROUNDS):
                samples["whole run"].append(run_seconds(config, Path(scratch)))
                samples["canary"].append(first_canary())
                samples["trace"].append(trace_seconds(config, training, dataset, device))
                samples["checkpoint"] += checkpoint_seconds(
                    config, training, middle[0], dataset, device, Path(scratch)
                )
        report(model, {name: statistics.median(values) for name, values in samples.items()})


def report(model: str, found: dict[str, float]) -> None:
    for name, value in found.items():
        print(f"  {model:20} {name:11} {value:7.4f} s")
    cost = found["trace"] + found["canary"]
    share = cost / found["whole run"]
    targets = {
        f"trace and canary {100 * share:.2f} % of the run, target <= {100 * MAX_SHARE:g} %": (
            share <= MAX_SHARE
        ),
        f"trace and canary {cost:.3f} s a run, target <= {MAX_SECONDS:g} s": cost <= MAX_SECONDS,
        f"a checkpoint {1000 * found['checkpoint']:.1f} ms, target <= "
        f"{1000 * MAX_CHECKPOINT_SECONDS:g} ms": found["checkpoint"] <= MAX_CHECKPOINT_SECONDS,
    }
    for text, is_met in targets.items():
        print(f"  {model:20} {text}: {'met' if is_met else 'MISSED'}", flush=True)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run_seconds(config: Config, home: Path) -> float:
    """As `digitlab train` takes it once everything is imported, in a project of its own."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.setenv("DIGITLAB_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with Interrupts() as interrupts:
            session = Session(interrupts, print, TrainingProgress())
            return seconds(lambda: run_experiment(request_run(config, say=print), session))


def train(training: Resumable, middle: list[Position]) -> None:
    """Keeps the position near the end of the last epoch, when it holds most."""
    last = training.steps_per_epoch - 1

    def before_step(position: Position) -> None:
        if position.epoch == EPOCHS and position.step == last:
            kept = {"losses": list(position.losses), "predictions": list(position.predictions)}
            middle.append(dataclasses.replace(position, **kept))

    for _ in training.reports(before_step):
        pass


def first_canary() -> float:
    """In a process of its own: it is computed once in each."""
    command = [sys.executable, "-c", FIRST_CANARY]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def trace_seconds(config: Config, training: Resumable, dataset: Dataset, device: torch.device) -> float:
    """All that a run does for its trace alone: digests of orders and weights, and writing it down."""
    document = describe_run(config, dataset, device, command="bench")
    order = torch.randperm(len(dataset.train))
    evaluation = evaluate(predict(training.model, dataset.test), dataset.test.labels)

    def make() -> None:
        for _ in range(EPOCHS):
            hashlib.sha256(order.numpy().tobytes()).hexdigest()
        state = training.model.state_dict()
        initial, weights = weights_digest(state), weights_digest(state)
        trace = trace_of(initial, training.history, weights=weights, evaluation=evaluation)
        for described in (document, dataclasses.replace(document, trace=trace)):
            file.write_text(documents.dump(described))

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / RECORD_FILE
        return seconds(make)


def checkpoint_seconds(
    config: Config,
    training: Resumable,
    position: Position,
    dataset: Dataset,
    device: torch.device,
    folder: Path,
) -> list[float]:
    known = identity(describe_run(config, dataset, device, command="bench"))
    return [
        seconds(lambda: save_checkpoint(folder, training.state(paused(position, device), known)))
        for _ in range(5)
    ]
