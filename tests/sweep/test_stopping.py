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


def test_what_a_stopped_sweep_has_done_is_kept_until_it_is_finished(
    digitlab: Cli, over_after: Callable[[int], None]
) -> None:
    line = ["sweep", *QUICK, "study=kept", "batch_size=50,60,70"]
    over_after(2)
    digitlab(*line, "--for=1h")
    trial = tree("kept")[1][0]
    for command in (["rm", trial.short_id], ["gc", "--keep-best", "1"]):
        result = digitlab(*command, "--yes")
        assert "is stopped: finish it with digitlab resume" in result.out + result.err
    assert len(tree("kept")[1]) == 2
    watched = digitlab("watch", newest().id)
    assert watched.code == 0, watched.err
    assert "2/3 trials" in watched.out
    digitlab(*line)
    assert "is stopped" not in digitlab("rm", trial.short_id).out


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


def test_a_search_that_has_reached_its_target_has_ended(digitlab: Cli) -> None:
    line = ["sweep", "epochs=4", "executor=inprocess", "sweep.search=tpe", "trials=9", "sweep.seed=2"]
    line += ["optimizer.learning_rate=tag(log, interval(1e-6, 1e-1))", "study=goal", "sweep.target=0.9"]
    assert "; until validation/accuracy of at least 0.9" in digitlab(*line, "--dry-run").out
    result = digitlab(*line)
    assert result.code == 0, result.err
    (own,), trials = tree("goal")
    reached = [run.metrics["chosen/validation_accuracy"] >= 0.9 for run in trials]
    assert reached == [False] * (len(trials) - 1) + [True], "the first that has it is the last"
    last, left = len(trials) - 1, 9 - len(trials)
    assert last > 0
    assert left > 0
    value = f"{trials[-1].metrics['chosen/validation_accuracy']:.4f}"
    note = f"sweep.target=0.9 was reached by trial {last} (validation/accuracy {value})"
    assert f"{note}: {left} of 9 trials were not started (without sweep.target they run)." in result.out
    assert (own.status, own.params["sweep.target"]) == ("FINISHED", "0.9")
    assert newest().manifest().settings.sweep.target == 0.9
    listed = status(digitlab)
    assert (listed["status"], listed["done"], listed["pending"]) == ("finished", len(trials), 0)
    dry = digitlab(*line, "--dry-run").out
    assert note in dry
    assert f"{len(trials)} ended, 0 to run\ntime: none" in dry
    again = digitlab(*line)
    assert f"{len(trials)} trials, all ended before" in again.out
    assert note in again.out
    assert len(tree("goal")[1]) == len(trials)
    whole = digitlab(*line[:-1])
    assert whole.code == 0
    assert "sweep.target" not in whole.out
    assert len(tree("goal")[1]) == 9, "another sweep, which repeats nothing"


def test_a_target_that_another_sweep_has_reached_starts_nothing(digitlab: Cli) -> None:
    line = ["sweep", *QUICK, *SEARCH, "study=known"]
    digitlab(*line)
    result = digitlab(*line, "sweep.target=0.1")
    assert "sweep.target=0.1 was reached by trial 0" in result.out
    assert events("started") == []


def test_a_grid_by_its_loss_stops_at_the_mean_over_seeds(digitlab: Cli) -> None:
    """The second learning rate reaches it: not before its second seed has ended."""
    line = ["sweep", "epochs=2", "executor=inprocess", "engine=sequential", "study=means", "repeats=2"]
    line += ["optimizer.learning_rate=1e-6,0.01,0.02", "sweep.metric=validation/loss"]
    line += ["sweep.target=1.0"]
    assert (
        "ends early once there is a validation/loss of at most 1.0" in digitlab(*line, "--dry-run").out
    )
    result = digitlab(*line)
    assert result.code == 0, result.err
    trials = tree("means")[1]
    assert len(trials) == 4
    mean = sum(run.metrics["chosen/validation_loss"] for run in trials[2:]) / 2
    note = f"sweep.target=1.0 was reached by trials 2 and 3 (mean validation/loss {mean:.4f})"
    assert f"{note}: 2 of 6 trials were not started" in result.out
    dry = digitlab(*line, "--dry-run").out
    assert note in dry
    assert "6 trials: 4 finished, 0 to run" in dry
    assert "4 trials, all ended before: 4 finished" in digitlab(*line).out


def test_a_target_that_nothing_reaches_is_told(digitlab: Cli) -> None:
    result = digitlab("sweep", *QUICK, "study=high", "seed=0,1", "sweep.target=1")
    assert result.code == 0, result.err
    assert "sweep.target=1.0 was not reached." in result.out
    assert tree("high")[0][0].status == "FINISHED"


def test_what_was_cut_short_after_the_target_goes_on_no_more(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is interrupted between the trial that reaches it and the end of the sweep."""
    from digitlab.sweep.workers.runner import Runner

    line = ["sweep", *QUICK, "study=cut", "batch_size=50,60,70", "sweep.target=0.2"]
    with monkeypatch.context() as patched:
        patched.setattr(Runner, "delivering", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            digitlab(*line)
    result = digitlab(*line)
    assert result.code == 0, result.err
    assert "sweep.target=0.2 was reached by trial" in result.out
    assert tree("cut")[0][0].status == "FINISHED"
    assert status(digitlab)["pending"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["sweep.target=99"],
            "sweep.target must be from 0 to 1 (0.99 means 99 %) for validation/accuracy",
        ),
        (
            ["sweep.target=-1", "sweep.metric=validation/loss"],
            "sweep.target must be at least 0 for validation/loss, got -1.0",
        ),
        (["sweep.target=high"], "sweep.target must be"),
        (["sweep.target=nan"], "sweep.target must be"),
        (["sweep.target=0.9", "data.validation_size=0"], "sweep.target needs a validation split"),
    ],
)
def test_a_target_that_cannot_be_is_refused(settings: list[str], message: str, digitlab: Cli) -> None:
    result = digitlab("sweep", *QUICK, "seed=0,1", *settings)
    assert result.code == 2
    assert message in result.err


def test_without_a_target_the_key_is_that_of_earlier_versions() -> None:
    """Of manifests before there were targets: the same command finds its sweep again."""
    from digitlab.sweep.manifest import Manifest
    from digitlab.sweep.planning.plan import plan

    for line in (["seed=1,2"], [*SEARCH]):
        planned = plan(line)
        assert plan([*line, "sweep.target=0.5"]).key != planned.key
        values = json.loads(json.dumps(planned.to_json(project.mlruns())))
        del values["settings"]["sweep"]["target"]
        values["format"] = 1
        assert Manifest.from_json(values, project.mlruns()) == planned
