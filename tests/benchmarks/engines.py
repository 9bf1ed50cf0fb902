"""Trials side by side against one by one: `members` and `sweeps` of `make bench-sweep`.

On MNIST, batches of 100, one thread. Members are measured against the plain loop in the same process,
in turns; sweeps end to end, with validation, test and recording in SQLite, against the tutorial's loop
(one model for one epoch, scaled) and against stock Hydra with the sequential engine.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from digitlab.config.schema import Config
from tests.benchmarks.processes import BASIC, DIGITLAB, check_finished, home, measure

ROUNDS = 3
BATCH = ["data=mnist", "batch_size=100", "optimizer=sgd"]
Measure = Callable[[], float]


def members() -> None:
    """Seconds for an epoch of one member, without validation."""
    _begin("members: side by side against the plain loop, in one process")
    logistic = "model=logistic_regression"
    cases = {
        ("64 logistic regressions, one order", 6.0): logistic_members(),
        ("64 logistic regressions, 8 orders", 3.5): [_line(logistic, i, i % 8) for i in range(64)],
        ("64 logistic regressions, 64 orders", 1.8): [_line(logistic, i, i) for i in range(64)],
        ("64 logistic regressions, one order, Adam", None): [
            [*_line(logistic, i, 0), "optimizer=adam"] for i in range(64)
        ],
        ("4 CNNs, one order", 1.3): [_line("model=cnn", i, 0) for i in range(4)],
    }
    for (name, target), lines in cases.items():
        theirs, ours = member_epochs(lines)
        report(f"{name}: an epoch of a member, s", theirs, ours, target)


def member_epochs(lines: Sequence[list[str]]) -> tuple[float, float]:
    """Seconds of an epoch of the first member alone, and of a member among all; medians."""
    import torch

    from digitlab.training.devices import keep_memory

    torch.set_num_threads(1)
    keep_memory()  # as a process that trains does
    plain, fused = _contestants(lines)
    samples = [(plain(), fused()) for _ in range(ROUNDS)]
    theirs, ours = (statistics.median(column) for column in zip(*samples, strict=True))
    return theirs, ours


def logistic_members() -> list[list[str]]:
    """64 logistic regressions in one order."""
    return [_line("model=logistic_regression", number, 0) for number in range(64)]


def whole_sweeps() -> None:
    """Wall seconds from the command to its end."""
    _begin("sweeps: from the command to its end, 2 workers")
    from tests.benchmarks.__main__ import tutorial_epoch

    cases = {
        "64 logistic regressions x 5 epochs": (
            ["model=logistic_regression", "epochs=5", f"optimizer.learning_rate={_rates(64)}"],
            (64, 5, 100.0, 6.0),
        ),
        "16 CNNs x 2 epochs": (
            ["model=cnn", "epochs=2", f"optimizer.learning_rate={_rates(16)}"],
            (16, 2, 5.0, 2.0),
        ),
    }
    for name, (line, (trials, epochs, over_tutorial, over_stock)) in cases.items():
        line = [*line, *BATCH, "data.order_seed=0"]
        tutorial, ours = list[float](), list[float]()
        for _ in range(ROUNDS):
            tutorial.append(trials * epochs * tutorial_epoch(line[0].partition("=")[2], threads=1))
            ours.append(_sweep(trials, "sweep", *line, "workers=2"))
        # Once, since it takes minutes; without pictures, which a sweep draws of its best run only.
        stock = [_sweep(trials, "train", "--multirun", *BASIC, *line, "record.plots=never")]
        seconds = {
            f"the tutorial's loop ({trials * epochs} x one epoch)": (
                tutorial,
                over_tutorial,
            ),
            "stock Hydra, one by one, no pictures": (stock, over_stock),
        }
        for against, (theirs, target) in seconds.items():
            told = f"{name}; {against}, s"
            report(told, statistics.median(theirs), statistics.median(ours), target)


def _begin(title: str) -> None:
    if not os.environ.get("DIGITLAB_DATA"):
        sys.exit("this needs MNIST: set DIGITLAB_DATA to a folder that holds MNIST/raw")
    print(f"\n{title}; MNIST, batches of 100, one thread each, medians of {ROUNDS} rounds", flush=True)
    print(f"  {'':86} {'against':>10} {'digitlab':>10} {'ratio':>8}", flush=True)


def report(name: str, theirs: float, ours: float, target: float | None) -> None:
    ratio = theirs / ours
    verdict = "" if target is None else f"  >= {target:g}: {'met' if ratio >= target else 'MISSED'}"
    print(f"  {name:86} {theirs:10.4f} {ours:10.4f} {ratio:7.1f}x{verdict}", flush=True)


def _line(model: str, number: int, order: int) -> list[str]:
    rate = f"optimizer.learning_rate={0.001 * (1 + number)}"
    return [model, *BATCH, rate, f"seed={number}", f"data.order_seed={order}", "epochs=2"]


def _rates(count: int) -> str:
    return ",".join(f"{0.002 * (1 + i):g}" for i in range(count))


def _contestants(lines: Sequence[list[str]]) -> tuple[Measure, Measure]:
    """The first member by the plain loop, all of them side by side; each after an epoch unmeasured."""
    from digitlab.config import project
    from digitlab.config.composition import composer
    from digitlab.data.splits import load
    from digitlab.models.build import build_model
    from digitlab.training.fused.loop import fit_many
    from digitlab.training.fused.members import Member
    from digitlab.training.loop import Position, fit
    from digitlab.training.optimizers import build_optimizer

    with composer() as made:
        configs = [made.compose([*line, "data.validation_size=0"]) for line in lines]
    train = load(configs[0].data, project.data_root(None)).train

    def member(config: Config) -> Member:
        model = build_model(config.model, config.seed, image_shape=(1, 28, 28), num_classes=10)
        return Member(
            model=model,
            optimizer=build_optimizer(config.optimizer, list(model.parameters())),
            schedule=lambda step: config.optimizer.learning_rate,
            seed=config.seed,
            order_seed=config.data.order_seed or 0,
            position=Position(epoch=1),
        )

    def plain() -> float:
        one = member(configs[0])
        reports = fit(
            one.model,
            train,
            None,
            optimizer=one.optimizer,
            schedule=one.schedule,
            batch_size=100,
            epochs=2,
            seed=one.seed,
            order_seed=one.order_seed,
        )
        return _second(reports)

    def side_by_side() -> float:
        these = [member(config) for config in configs]
        return _second(fit_many(these, train, None, batch_size=100, epochs=2)) / len(these)

    return plain, side_by_side


def _second(epochs: Iterator[object]) -> float:
    """Seconds from the end of the first to that of the second."""
    next(epochs)
    started = time.perf_counter()
    next(epochs)
    return time.perf_counter() - started


def _sweep(trials: int, *command: str) -> float:
    with _data_home() as environment:
        seconds = measure([*DIGITLAB, *command], environment).wall
        check_finished(environment, trials)
        return seconds


@contextmanager
def _data_home() -> Iterator[dict[str, str]]:
    """A project of its own, with the data sets of this one."""
    with home() as environment:
        yield {**environment, "DIGITLAB_DATA": os.environ["DIGITLAB_DATA"]}
