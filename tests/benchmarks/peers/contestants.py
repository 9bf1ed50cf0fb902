"""Who is measured at what: digitlab, its peers, and the other targets of speed.

A contestant is a command, measured from its start to its end, in a folder of its own, that has recorded
all its trials as FINISHED in MLflow on SQLite. Knows nothing of rounds, tables or charts.
"""

import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.peers import environments
from tests.benchmarks.processes import (
    DIGITLAB,
    Cost,
    check_finished,
    check_recorded,
    home,
    measure,
)

SCRIPTS = Path(__file__).parent / "scripts"
TIMEOUT = 1200  # seconds
WORKS = ("logistic", "cnn", "accuracy", "start", "members", "many")
LOGISTIC, CNN, ACCURACY, START, MEMBERS, MANY = WORKS
OURS = "digitlab"
BATCHES = ["data=mnist", "batch_size=100", "optimizer=sgd"]
MEMBER_EPOCHS = (
    "from tests.benchmarks.engines import logistic_members, member_epochs;"
    "print(*member_epochs(logistic_members()))"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement."""

    wall: float  # seconds
    cpu: float  # seconds
    value: float | None = None  # accuracy on test in [0, 1], or what else the work asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    name: str  # as tables and charts call it
    work: str  # of WORKS
    sizes: tuple[int, ...]  # trials, epochs or iterations of each of its measurements
    run: Callable[[int], Sample]
    environment: str | None = None  # of requirements/; None: digitlab's own


def contestants(*, small: bool) -> list[Contestant]:
    """All of them; `small` tries each in seconds, which measures nothing."""
    full, part, slow, cnns = (64, 256), (16, 64), (8, 24), (16,)
    if small:
        full = part = slow = (2, 8)
        cnns = (2,)
    return [
        Contestant(name=OURS, work=LOGISTIC, sizes=full, run=_our_logistic),
        _peer("Optuna + MLflow", "optuna_mlflow", LOGISTIC, full, "optuna_mlflow.py", "logistic"),
        _peer("Ray Tune + MLflow", "ray_tune", LOGISTIC, part, "ray_tune.py", "logistic"),
        _peer(
            *("Hydra, joblib launcher + MLflow", "hydra", LOGISTIC, part),
            *("hydra_multirun.py", "logistic", "joblib"),
        ),
        _peer(
            *("Hydra, basic launcher + MLflow", "hydra", LOGISTIC, slow),
            *("hydra_multirun.py", "logistic", "basic"),
        ),
        _peer(
            *("a loop with MLflow's autologging", "autologging", LOGISTIC, slow),
            *("autologged_loop.py", "logistic"),
        ),
        Contestant(name=OURS, work=CNN, sizes=cnns, run=_our_cnns),
        _peer("Optuna + MLflow, NCHW", "optuna_mlflow", CNN, cnns, "optuna_mlflow.py", "cnn"),
        _peer(
            *("Optuna + MLflow, channels-last", "optuna_mlflow", CNN, cnns),
            *("optuna_mlflow.py", "cnn_channels_last"),
        ),
        Contestant(
            name=OURS, work=ACCURACY, sizes=(1, 15) if small else (1, 2, 5, 10, 15), run=_our_training
        ),
        _scikit("lbfgs", (5,) if small else (30, 100)),
        _scikit("saga", (1,) if small else (5,)),
        Contestant(name="import torch", work=START, sizes=(1,), run=_import_torch),
        Contestant(name=OURS, work=START, sizes=(64,), run=_first_epoch),
        Contestant(name=OURS, work=MEMBERS, sizes=(64,), run=_member_epochs),
        Contestant(name=OURS, work=MANY, sizes=(8,) if small else (1000,), run=_many_runs),
    ]


def rates(trials: int) -> str:
    """So many learning rates up to 0.3."""
    return ",".join(f"{0.3 * (number + 1) / trials:.6g}" for number in range(trials))


def sweep_line(trials: int) -> list[str]:
    """digitlab's side of the logistic regressions."""
    knobs = ["model=logistic_regression", "epochs=5", *BATCHES]
    return [*knobs, f"optimizer.learning_rate={rates(trials)}", "workers=2"]


def _our_logistic(trials: int) -> Sample:
    return _sweep(trials, *sweep_line(trials))


def _our_cnns(trials: int) -> Sample:
    knobs = ["model=cnn", "epochs=2", *BATCHES]
    return _sweep(trials, *knobs, f"optimizer.learning_rate={rates(trials)}", "workers=2")


def _many_runs(trials: int) -> Sample:
    return _sweep(trials, "model=logistic_regression", "epochs=1", f"seed=range({trials})")


def _sweep(trials: int, *knobs: str) -> Sample:
    with project_with_data() as environment:
        cost = measure([*DIGITLAB, "sweep", *knobs], environment, timeout=TIMEOUT)
        check_finished(environment, trials)
        return _sample(cost)


def _our_training(epochs: int) -> Sample:
    """One run with digitlab's own defaults."""
    knobs = ["data=mnist", "model=logistic_regression", f"epochs={epochs}"]
    with project_with_data() as environment:
        cost = measure([*DIGITLAB, "train", *knobs], environment, timeout=TIMEOUT)
        check_finished(environment, 1)
        with sqlite3.connect(Path(environment["DIGITLAB_HOME"]) / "mlruns" / "mlflow.db") as store:
            (accuracy,) = store.execute(
                "SELECT value FROM latest_metrics WHERE key = 'test/accuracy'"
            ).fetchone()
    return _sample(cost, accuracy)


def _first_epoch(trials: int) -> Sample:
    """Until the first epoch is on disk; on digits it takes milliseconds, the first step is earlier."""
    from tests.benchmarks.sweeps import digitlab_first

    line = ("sweep", "model=logistic_regression", "epochs=1", f"seed=range({trials})")
    _, seconds = digitlab_first(*line)
    return Sample(seconds, 0.0)


def _import_torch(_: int) -> Sample:
    with project_with_data() as environment:
        return _sample(measure([sys.executable, "-c", "import torch"], environment))


def _member_epochs(_: int) -> Sample:
    """The value: an epoch alone, in epochs of a member among 64."""
    with project_with_data() as environment:
        cost = measure([sys.executable, "-c", MEMBER_EPOCHS], environment, timeout=TIMEOUT)
    alone, among = map(float, cost.out.split())
    return _sample(cost, alone / among)


@contextmanager
def project_with_data() -> Iterator[dict[str, str]]:
    """A project of its own, with the data sets of this one."""
    with home() as environment:
        yield {**environment, "DIGITLAB_DATA": os.environ["DIGITLAB_DATA"]}


def _peer(
    name: str, environment: str, work: str, sizes: tuple[int, ...], script: str, *arguments: str
) -> Contestant:
    return Contestant(
        name=name,
        work=work,
        sizes=sizes,
        environment=environment,
        run=lambda trials: run_peer(environment, script, trials, *arguments),
    )


def run_peer(environment: str, script: str, trials: int, model: str, *arguments: str) -> Sample:
    """One peer's whole command: so many trials, recorded and finished."""
    with tempfile.TemporaryDirectory(prefix="peer-") as scratch:
        command = [script, scratch, model, str(trials), *arguments]
        cost = _in_environment(environment, command, Path(scratch))
        check_recorded(Path(scratch) / "mlflow.db", trials)
        return _sample(cost)


def _scikit(solver: str, sizes: tuple[int, ...]) -> Contestant:
    return Contestant(
        name=f"scikit-learn, {solver}",
        work=ACCURACY,
        sizes=sizes,
        environment="scikit_learn",
        run=lambda iterations: run_scikit(solver, iterations),
    )


def run_scikit(solver: str, iterations: int) -> Sample:
    with tempfile.TemporaryDirectory(prefix="peer-") as scratch:
        command = ["scikit_learn.py", solver, str(iterations)]
        cost = _in_environment("scikit_learn", command, Path(scratch))
        return _sample(cost, float(cost.out))


def _in_environment(name: str, command: Sequence[str], folder: Path) -> Cost:
    """As a user would start it: nothing of MLflow's or digitlab's is inherited but the data."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DIGITLAB_"))}
    own = {"DIGITLAB_DATA": os.environ["DIGITLAB_DATA"], "RAY_USAGE_STATS_ENABLED": "0"}
    script, *arguments = command
    return measure(
        [str(environments.python_of(name)), str(SCRIPTS / script), *arguments],
        {**inherited, **own},
        folder=folder,
        timeout=TIMEOUT,
    )


def _sample(cost: Cost, value: float | None = None) -> Sample:
    return Sample(cost.wall, cost.cpu, value)
