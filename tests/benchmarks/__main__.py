"""Ratios against the tutorial's loop and bare imports, measured side by side: `make bench`.

Needs MNIST in $DIGITLAB_DATA (or the default data folder). Each line is a median of five or more
samples, taken in turns, so that a busy moment of the machine hits all contestants alike.
"""

import contextlib
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from digitlab.config import project
from digitlab.config.composition import compose
from digitlab.data.splits import load
from digitlab.models.build import build_model
from digitlab.runs import experiment
from digitlab.runs.describe import request_run
from digitlab.runs.interrupts import Interrupts
from digitlab.runs.progress import TrainingProgress
from digitlab.training import arithmetic, resumable
from digitlab.training.evaluation import Scores
from digitlab.training.loop import EpochReport, fit
from digitlab.training.optimizers import build_optimizer
from tests.benchmarks.traces import bench_traces

ROUNDS = 5
BATCH_SIZE = 100
STEPS_PER_EPOCH = 600
TUTORIAL_STEPS = 150  # a quarter of an epoch, scaled: the loop costs the same at every step


def main() -> None:
    machine = arithmetic.machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, torch {torch.__version__}")
    bench_epochs()
    bench_traces()
    bench_start()
    bench_recording()


def in_turns(contestants: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median of what each contestant returns, after one unmeasured round."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            value = run()
            if turn:
                samples[name].append(value)
    return {name: statistics.median(values) for name, values in samples.items()}


def bench_epochs() -> None:
    print("\nseconds per MNIST epoch, batch 100, SGD")
    for model in ("logistic_regression", "cnn"):
        found = in_turns(
            {
                "tutorial, 1 thread": lambda model=model: tutorial_epoch(model, threads=1),
                "tutorial, 2 threads": lambda model=model: tutorial_epoch(model, threads=2),
                "digitlab, 1 thread": lambda model=model: our_epoch(model, threads=1),
                "digitlab, 2 threads": lambda model=model: our_epoch(model, threads=2),
            }
        )
        for name, seconds in found.items():
            print(f"  {model:20} {name:20} {seconds:7.3f} s")
        theirs, ours = (
            min((seconds, name) for name, seconds in found.items() if name.startswith(who))
            for who in ("tutorial", "digitlab")
        )
        one = found["tutorial, 1 thread"] / found["digitlab, 1 thread"]
        print(f"  {model:20} one thread each: {one:.1f}x")
        print(
            f"  {model:20} {ours[1]} against {theirs[1]}, the best of each: {theirs[0] / ours[0]:.1f}x"
        )


def tutorial_epoch(model_name: str, *, threads: int) -> float:
    """The tutorial's loop: DataLoader, ToTensor per image, NCHW, torch.optim.SGD."""
    import torchvision

    torch.set_num_threads(threads)
    images = torchvision.datasets.MNIST(
        project.data_root(None), transform=torchvision.transforms.ToTensor()
    )
    loader = torch.utils.data.DataLoader(images, batch_size=BATCH_SIZE, shuffle=True)
    model = {
        "logistic_regression": nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
        "cnn": nn.Sequential(
            *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10)),
        ),
    }[model_name]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss_function = nn.CrossEntropyLoss()
    started = time.perf_counter()
    for step, (batch, labels) in enumerate(loader):
        if step == TUTORIAL_STEPS:
            break
        optimizer.zero_grad()
        loss = loss_function(model(batch), labels)
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - started) * STEPS_PER_EPOCH / TUTORIAL_STEPS


def our_epoch(model_name: str, *, threads: int) -> float:
    """One whole epoch through `fit`, with its scores."""
    torch.set_num_threads(threads)
    settings = [f"model={model_name}", "data=mnist", "data.validation_size=0", "optimizer=sgd"]
    config = compose([*settings, "optimizer.learning_rate=0.01", f"batch_size={BATCH_SIZE}"])
    dataset = load(config.data, project.data_root(None))
    model = build_model(config.model, 0, image_shape=(1, 28, 28), num_classes=10)
    (report,) = fit(
        model,
        dataset.train,
        None,
        optimizer=build_optimizer(config.optimizer, list(model.parameters())),
        schedule=lambda step: 0.01,
        batch_size=BATCH_SIZE,
        epochs=1,
        seed=0,
    )
    return report.seconds


FIRST_STEP = """
import os, sys, time
from digitlab import cli
from digitlab.cli import train

started, run = float(sys.argv[1]), train.run_config

def run_until_the_first_loss(config):
    from digitlab.training import loop

    def stop(*_):
        print(time.time() - started, flush=True)
        os._exit(0)

    loop._refuse_divergence = stop
    run(config)

train.run_config = run_until_the_first_loss
cli.main(["train", "model=cnn"])
"""


def bench_start() -> None:
    print("\nseconds from process start to the end of the first optimizer step (model=cnn on digits)")
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(project.conf(), Path(scratch) / "conf")
        environment = {**os.environ, "DIGITLAB_HOME": scratch}

        def first_step() -> float:
            shutil.rmtree(Path(scratch) / "mlruns", ignore_errors=True)
            command = [sys.executable, "-c", FIRST_STEP, str(time.time())]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            return float(done.stdout)

        def bare_import() -> float:
            started = time.time()
            subprocess.run([sys.executable, "-c", "import torch"], check=True)
            return time.time() - started

        found = in_turns({"import torch": bare_import, "first step": first_step}, rounds=7)
    for name, seconds in found.items():
        print(f"  {name:20} {seconds:7.3f} s")
    print(f"  ratio {found['first step'] / found['import torch']:.2f}x")


def bench_recording() -> None:
    """A run of 20 epochs whose training takes no time: what is left is recording (and evaluation)."""
    print("\nseconds to record one run of 20 epochs in an existing SQLite store (digits, all plots)")
    torch.set_num_threads(1)
    history = [
        EpochReport(
            epoch=epoch,
            train=Scores(1 / epoch, 1 - 0.5 / epoch),
            validation=Scores(1.1 / epoch, 1 - 0.6 / epoch),
            learning_rate=0.001,
            seconds=0.1,
            images_per_second=10_000.0,
            order="",
            first_losses=(),
        )
        for epoch in range(1, 21)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(project.conf(), Path(scratch) / "conf")
        os.environ["DIGITLAB_HOME"] = scratch
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        resumable.fit = lambda *_, **__: iter(history)  # type: ignore[attr-defined]
        config = compose(["epochs=20", "study=bench"])

        def record() -> float:
            started = time.perf_counter()
            with Interrupts() as interrupts, contextlib.redirect_stderr(io.StringIO()):
                session = experiment.Session(interrupts, print, TrainingProgress())
                experiment.run_experiment(request_run(config, say=print), session)
            return time.perf_counter() - started

        found = in_turns({"recording": record}, rounds=9)
    print(f"  {'recording':20} {found['recording']:7.3f} s")


if __name__ == "__main__":
    main()
