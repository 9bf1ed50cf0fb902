"""A sweep that ends before all of its trials were started, by a limit that it was given."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from digitlab.config import project
from digitlab.errors import UsageError
from digitlab.sweep.ending.stop_rule import TimeLimit
from digitlab.sweep.sweep_folder import SweepFolder, all_sweeps
from tests.support.cli import Cli
from tests.support.sweeps import bits, tree

QUICK = ("epochs=1", "executor=inprocess", "engine=sequential")
SEARCH = ("sweep.search=tpe", "trials=9", "optimizer.learning_rate=tag(log, interval(1e-4, 1e-1))")


def newest() -> SweepFolder:
    return all_sweeps(project.sweeps())[0]


def events(kind: str) -> list[dict[str, object]]:
    return [event for event in newest().events() if event["event"] == kind]


@pytest.fixture
def over_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """The time of --for is over when the newest sweep has so many more of these events."""

    def patch(count: int, kind: str = "ended") -> None:
        before = len(events(kind)) if all_sweeps(project.sweeps()) else 0
        monkeypatch.setattr(TimeLimit, "is_over", lambda self: len(events(kind)) >= before + count)

    return patch


def status(digitlab: Cli) -> dict[str, object]:
    return json.loads(digitlab("sweeps", "--json").out)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("10min", 600), ("1.5h", 5400), ("2d", 172800)]
)
def test_a_time_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    before = time.monotonic()
    assert before + seconds <= TimeLimit.from_now(text).deadline <= time.monotonic() + seconds


@pytest.mark.parametrize("text", ["0s", "10", "-1m", "ten minutes", "", "1w", "infd"])
def test_another_time_is_refused_before_anything_is_composed(
    text: str, digitlab: Cli, home: Path
) -> None:
    with pytest.raises(UsageError):
        TimeLimit.from_now(text)
    result = digitlab("sweep", *QUICK, "seed=0,1", f"--for={text}")
    assert result.code == 2
    assert "--for takes a number of s, m, h or d (`90s`, `10m`, `1.5h`)" in result.err
    assert f"got {text!r}" in result.err
    assert not project.sweeps().exists()


def test_a_grid_whose_time_is_over_ends_and_goes_on_by_the_same_command(
    digitlab: Cli, over_after: Callable[[int], None]
) -> None:
    line = ["sweep", *QUICK, "study=cut", "seed=range(5)"]
    over_after(2)
    result = digitlab(*line, "--for", "10m")
    assert result.code == 0, result.err
    sweep_id = newest().id
    note = "Stopped: the time of --for 10m is over, and 3 of 5 trials are left"
    assert f"{note}; to go on: digitlab resume {sweep_id}" in result.out
    assert "rank" in result.out
    (own,), trials = tree("cut")
    assert own.status == "KILLED", "it can go on"
    assert own.tags["digitlab.error"].startswith(note)
    assert [run.status for run in trials] == ["FINISHED"] * 2
    listed = status(digitlab)
    assert (listed["status"], listed["done"], listed["pending"]) == ("stopped", 2, 3)
    assert "5 trials: 2 finished, 3 to run" in digitlab(*line, "--dry-run").out
    over_after(1)
    assert "2 of 5 trials are left" in digitlab("resume", sweep_id, "--for", "10m").out
    again = digitlab(*line)
    assert again.code == 0
    assert "Stopped" not in again.out
    (own,), trials = tree("cut")
    assert own.status == "FINISHED"
    assert "digitlab.error" not in own.tags
    assert len(trials) == 5
    assert status(digitlab)["status"] == "finished"
    digitlab("sweep", *QUICK, "study=whole", "seed=range(5)")
    assert bits("cut") == bits("whole")


def test_a_search_stopped_twice_makes_the_trials_of_one_that_was_not(
    digitlab: Cli, over_after: Callable[[int], None]
) -> None:
    over_after(6)
    assert "3 of 9 trials are left" in digitlab("sweep", *QUICK, *SEARCH, "study=cut", "--for=1h").out
    over_after(2)
    assert "1 of 9 trials are left" in digitlab("sweep", *QUICK, *SEARCH, "study=cut", "--for=1h").out
    over_after(10)
    assert "Stopped" not in digitlab("sweep", *QUICK, *SEARCH, "study=cut", "--for=1h").out
    digitlab("sweep", *QUICK, *SEARCH, "study=whole")
    assert bits("cut") == bits("whole")


def test_a_limit_that_is_over_at_once_starts_nothing(
    digitlab: Cli, over_after: Callable[[int], None]
) -> None:
    over_after(0)
    result = digitlab("sweep", *QUICK, *SEARCH, "study=none", "--for=1s")
    assert result.code == 0, result.err
    assert "9 of 9 trials are left" in result.out
    assert tree("none")[1] == []


def test_trials_side_by_side_have_all_started(
    digitlab: Cli, over_after: Callable[[int, str], None]
) -> None:
    line = ["sweep", "epochs=1", "study=chunks", "engine=fused", "workers=1"]
    line += ["model=logistic_regression", "batch_size=50,100", "optimizer.learning_rate=0.1,0.01,0.02"]
    over_after(1, "started")
    result = digitlab(*line, "--for=1h")
    assert result.code == 0, result.err
    assert "3 of 6 trials are left" in result.out
    assert {run.status for run in tree("chunks")[1]} == {"FINISHED"}
    assert len(events("started")) == 3


def test_what_runs_goes_on_to_its_end_and_is_told(
    digitlab: Cli, over_after: Callable[[int], None]
) -> None:
    over_after(1)
    line = ["model=cnn", "epochs=1,40,2", "workers=2", "engine=sequential", "study=on"]
    result = digitlab("sweep", *line, "--for=1h")
    assert result.code == 0, result.err
    assert "the time of --for 1h is over: no further trial starts" in result.err
    assert [run.params["epochs"] for run in tree("on")[1]] == ["1", "40"]
    assert {run.status for run in tree("on")[1]} == {"FINISHED"}


def test_a_trial_that_failed_is_not_started_again_when_the_time_is_over(
    digitlab: Cli, over_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from digitlab.runs import experiment

    monkeypatch.setattr(experiment, "evaluate", lambda *_: 1 / 0)
    over_after(1)
    result = digitlab("sweep", *QUICK, "study=failed", "seed=range(3)", "--retries=5", "--for=1h")
    assert result.code == 1
    assert len(events("started")) == 1
    assert "2 of 3 trials are left" in result.out
    assert tree("failed")[0][0].status == "FAILED"


def test_by_the_clock_no_trial_starts_later_and_what_runs_ends_well(digitlab: Cli) -> None:
    began = 1000 * time.time()
    line = ["epochs=3", "workers=2", "engine=sequential", "study=clock", "seed=range(400)"]
    result = digitlab("sweep", *line, "--for", "5s")
    assert result.code == 0, result.err
    assert re.search(r"and \d+ of 400 trials are left", result.out)
    assert all(event["time"] <= began + 5_500 for event in events("started"))  # type: ignore[operator]
    started = sorted(event["number"] for event in events("started"))  # type: ignore[type-var]
    assert sorted(event["number"] for event in events("ended")) == started  # type: ignore[type-var]
    assert {event["state"] for event in events("ended")} <= {"FINISHED"}
