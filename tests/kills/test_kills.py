"""kill -9 at every named place, and at random moments: the same command again finishes the sweep."""

import datetime
import multiprocessing
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from digitlab.sweep.workers.executors.worker import warm_up
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from tests.kills.victim import CONTROLLER_PLACES, STORE_PLACES, WORKER_PLACES
from tests.support.cli import LEVEL, Cli, in_ci, slow, start
from tests.support.processes import processes_of, wait_for, workers_of
from tests.support.sweeps import check_whole, undisturbed

SWEEP = ["sweep", "model=cnn", "epochs=4", "checkpoint.every_seconds=0", "seed=0,1,2,3", "workers=2"]
SWEEP += ["record.plots=never"]
ONE_ORDER = [*SWEEP, "data.order_seed=0"]
FUSED = [*ONE_ORDER, "engine=fused"]  # two workers with two trials side by side each
NUM_RANDOM_KILLS = 20 if LEVEL == "1" else 2


@pytest.fixture(scope="module", autouse=True)
def _fork_server() -> None:
    """Start this process' fork server outside any home, so that no test counts it as left over."""
    warm_up()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The weights of every trial when nobody is killed."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), SWEEP)


@pytest.fixture(scope="module")
def expected_fused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same of FUSED, one by one all the same."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), [*ONE_ORDER, "engine=sequential"])


def finish(line: list[str], digitlab: Cli) -> None:
    """The same command again, in this process; its workers are processes all the same."""
    again = digitlab(*line)
    assert again.code == 0, again.err
    assert multiprocessing.active_children() == [], "no process is left"


PLACES = [(place, "controller") for place in CONTROLLER_PLACES]
PLACES += [
    (place, who)
    for place in [*WORKER_PLACES, *STORE_PLACES]
    for who in ("worker", "controller", "both")
]
ALWAYS = [("composing", "controller"), ("step", "both"), ("closing", "worker")]
IN_CI = [(place, "controller") for place in CONTROLLER_PLACES]  # with ALWAYS: each place once
IN_CI += [("checkpoint", "both"), ("artifact", "worker"), ("delivering_artifacts", "controller")]


def every(
    pairs: list[tuple[str, str]], always: list[tuple[str, str]], ci: list[tuple[str, str]]
) -> Any:
    """Parameters: these always, those in CI, all of them by `make test-all`."""
    marks = {pair: [] if pair in always else [in_ci if pair in ci else slow] for pair in pairs}
    return pytest.mark.parametrize(
        ("place", "who"), [pytest.param(*pair, marks=marks[pair]) for pair in pairs]
    )


@pytest.mark.fault("F1")
@every(PLACES, ALWAYS, IN_CI)
def test_killed_at(
    place: str, who: str, home: Path, tmp_path: Path, expected: dict[str, str], digitlab: Cli
) -> None:
    mark = tmp_path / "mark"
    line = [*SWEEP, "study=sweep"]
    process = start(line, KILL_PLACE=place, KILL_WHO=who, KILL_MARK=str(mark))
    code = process.wait(timeout=120)
    assert mark.exists(), "it was killed"
    # A run that has ended is on this disk: when the process that delivers dies, another one does.
    assert code == (-signal.SIGKILL if who != "worker" else 0 if place in STORE_PLACES else 1)
    wait_for(lambda: processes_of(home) == [], "no process is left", seconds=10)
    finished = {} if code == -9 and not (home / "mlruns" / "mlflow.db").exists() else ids_of_finished()
    finish(line, digitlab)
    check_whole(home, expected, epochs=4)
    assert finished.items() <= ids_of_finished().items(), "nothing that had finished ran again"


FUSED_PLACES = [("step", "both"), ("step", "worker"), ("checkpoint", "both"), ("artifact", "worker")]
FUSED_PLACES += [("delivering_artifacts", "controller"), ("closing", "both"), ("told", "controller")]


@pytest.mark.fault("F1")
@every(FUSED_PLACES, FUSED_PLACES[:1], FUSED_PLACES[1:3])
def test_killed_side_by_side_at(
    place: str, who: str, home: Path, tmp_path: Path, expected_fused: dict[str, str], digitlab: Cli
) -> None:
    mark = tmp_path / "mark"
    line = [*FUSED, "study=sweep"]
    process = start(line, KILL_PLACE=place, KILL_WHO=who, KILL_MARK=str(mark))
    code = process.wait(timeout=120)
    assert mark.exists(), "it was killed"
    assert code == (0 if who == "worker" else -signal.SIGKILL), "what is left goes on one by one"
    wait_for(lambda: processes_of(home) == [], "no process is left", seconds=10)
    finish(line, digitlab)
    check_whole(home, expected_fused, epochs=4)


def ids_of_finished() -> dict[str, int | None]:
    runs = RunStore(resolve_uri(None)).runs()
    return {
        run.run_id: run.end_time for run in runs if run.status == "FINISHED" and "trial" in run.tags
    }


@pytest.mark.fault("F1")
@in_ci
def test_killed_at_random_moments(
    home: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch, digitlab: Cli
) -> None:
    """Controller, a worker or both, whatever they do; a finished sweep is followed by another."""
    today = datetime.date.today().isoformat()
    print(f"the moments of {today}")  # shown if it fails
    dice = random.Random(today)
    line = [*SWEEP, "study=sweep"]
    kills, num_sweeps, conf = 0, 0, home / "conf"
    while kills < NUM_RANDOM_KILLS:
        process = start(line, is_real=True)
        time.sleep(dice.uniform(0.3, 7.0))
        who = dice.choice(["controller", "worker", "both"])
        victims = workers_of(process)[:1] if process.poll() is None and who != "controller" else []
        if who != "worker" and process.poll() is None:
            process.kill()
            kills += 1
        for victim in victims:
            victim.kill()
            kills += who == "worker"
        process.communicate(timeout=120)
        wait_for(lambda home=home: processes_of(home) == [], "no process is left", seconds=10)
        if process.returncode == 0 and not victims:
            check_whole(home, expected, epochs=4)
            num_sweeps += 1
            home = home.with_name(f"sweep_{num_sweeps}")
            home.mkdir()
            (home / "conf").symlink_to(conf)
            monkeypatch.setenv("DIGITLAB_HOME", str(home))
    finish(line, digitlab)
    check_whole(home, expected, epochs=4)
