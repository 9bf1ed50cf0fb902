"""Conditions on runs: what is read, what they say of a run, and that MLflow never hides a match."""

import random
import time
from pathlib import Path

import pytest

from digitlab.errors import UsageError
from digitlab.tracking import names
from digitlab.tracking.search.run_filter import (
    Condition,
    RunFilter,
    check_name,
    parse_conditions,
    ranked,
    start_condition,
    tag_condition,
)
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun, undelivered
from tests.support.run_folders import new_record

CNN = {"model.name": "cnn", "optimizer.learning_rate": "0.001", "seed": "7", "run_name": "null"}


def made(number: int = 0, **changes: object) -> StoredRun:
    known: dict[str, object] = {
        "run_id": f"{number:032x}",
        "experiment_id": "1",
        "study": "digits",
        "name": "cnn adam seed=7",
        "status": "FINISHED",
        "start_time": 1_700_000_000_000,
        "end_time": 1_700_000_090_000,
        "params": CNN,
        "metrics": {"test/accuracy": 0.985, "test/loss": 0.05},
        "tags": {"owner": "me", "sweep": "s1 s2", "digitlab.commit": "abc"},
        "artifact_uri": "",
    }
    return StoredRun(**(known | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("model.name = cnn", True),
        ("model.name = 'cnn' AND test/accuracy > 0.98", True),
        ("model.name='cnn' and test/accuracy>0.99", False),
        ("params.model.name = cnn", True),
        ("metrics.test/accuracy >= 0.985", True),
        ("tags.owner = me", True),
        ("owner != me", False),
        ("`owner` LIKE 'm%'", True),
        ("optimizer.learning_rate = 1e-3", True),  # as numbers: the run has it as 0.001
        ("optimizer.learning_rate < 0.001", False),
        ("seed <= 7", True),
        ("seed > 10", False),  # not as texts, where 7 is more than 10
        ("run_name = null", True),
        ("name LIKE '%adam%'", True),
        ("name LIKE '%ADAM%'", False),
        ("name ILIKE '%ADAM%'", True),
        ("name LIKE 'cnn_adam%'", True),
        ("status = FINISHED", True),
        ("status != FINISHED", False),
        ("sweep = s2", True),
        ("sweep = s", False),
        ("commit = abc", True),
        ("seconds > 80", True),
        ("nothing.such != 3", False),  # as in SQL: a run without it does not match
        ("model.name > 3", False),
    ],
)
def test_a_condition_says_what_it_reads_like(text: str, holds: bool) -> None:
    assert RunFilter(tuple(parse_conditions(text))).matches(made()) is holds


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "NAME OPERATOR VALUE"),
        ("seed", "NAME OPERATOR VALUE"),
        ("seed = 1 OR seed = 2", "OR seed = 2"),
        ("seed = 1 AND", "NAME OPERATOR VALUE"),
        ("seed = 'a", "NAME OPERATOR VALUE"),
        ("test/accuracy > high", "needs a number"),
        ("status = DONE", "status must be one of RUNNING"),
        ("sweep > 3", "only ="),
    ],
)
def test_what_cannot_be_read_is_told_with_what_can(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        parse_conditions(text)


def test_a_pruned_trial_is_pruned_and_not_killed() -> None:
    pruned = made(status="KILLED", tags={names.PRUNED_TAG: "3"})
    assert Condition("status", "=", "PRUNED").holds(pruned)
    assert not Condition("status", "=", "KILLED").holds(pruned)


@pytest.mark.parametrize("text", ["2d", "48h", "2880 min", "172800s", "0.5w"])
def test_since_reads_durations(text: str) -> None:
    days = 3.5 if text == "0.5w" else 2
    start = int((time.time() - days * 86_400) * 1000)
    condition = start_condition(text)
    assert condition.holds(made(start_time=start + 5_000))
    assert not condition.holds(made(start_time=start - 5_000))


def test_since_reads_dates_and_refuses_the_rest() -> None:
    assert start_condition("2023-11-01").holds(made())
    assert not start_condition("2023-12-01 10:00").holds(made())
    for text in ("yesterday", "2", "2 months", ""):
        with pytest.raises(UsageError, match="2026-05-31"):
            start_condition(text)


def test_a_tag_is_asked_for_with_its_value() -> None:
    assert tag_condition("owner=me").holds(made())
    assert not tag_condition("owner=you").holds(made())
    with pytest.raises(UsageError, match="NAME=VALUE"):
        tag_condition("owner")


def test_a_name_that_no_run_has_is_told_with_the_nearest() -> None:
    for name in ("seed", "test/accuracy", "owner", "status"):
        check_name(name, [made()])
    with pytest.raises(UsageError, match=r"did you mean optimizer\.learning_rate"):
        check_name("optimizer.learning_rat", [made()])
    with pytest.raises(UsageError, match="did you mean test/accuracy"):
        check_name("test/acuracy", [made()])


def test_runs_are_ranked_the_best_first_and_those_without_it_last() -> None:
    runs = [
        made(i, metrics={"test/accuracy": value, "test/loss": value})
        for i, value in enumerate([0.5, float("nan"), 0.9, 0.7])
    ]
    runs.append(made(4, metrics={}))
    assert [int(run.run_id, 16) for run in ranked(runs, "test/accuracy")] == [2, 3, 0, 1, 4]
    assert [int(run.run_id, 16) for run in ranked(runs, "test/loss")] == [0, 3, 2, 1, 4]
    seeds = [made(i, params={"seed": str(seed)}) for i, seed in enumerate([10, 9, 100])]
    assert [int(run.run_id, 16) for run in ranked(seeds, "seed")] == [1, 0, 2]


CONDITIONS = [
    *("model.name = cnn", "model.name != 'cnn'", "seed > 1", "seed = 1", "seed = 1.0"),
    *("test/accuracy > 0.5", "test/accuracy <= 0.5", "test/accuracy = 0.5", "test/accuracy != 0.5"),
    *("metrics.test/loss < 1e300", "status = FINISHED", "status = KILLED", "status = PRUNED"),
    *("status != FAILED", "name LIKE '%n_1%'", "name ILIKE '%N%'", "name = n1", "name != n1"),
    *("owner = me", "tags.owner != me", "sweep = s2", "sweep = s", "start_time > 1500"),
    *("start_time <= 1500", "study = a", 'name = "it\'s"', "start_time != 1050", "seconds >= 0"),
]


def test_what_mlflow_leaves_out_does_not_match_either(home: Path) -> None:
    """The oracle: all runs read without a filter, and judged here."""
    draw, store = random.Random(5), RunStore(f"sqlite:///{home}/mlruns/mlflow.db")
    for number in range(24):
        tags = {"owner": draw.choice(["me", "you", "it's"]), "sweep": draw.choice(["s1", "s2 s1", "s"])}
        status = draw.choice(["FINISHED", "FAILED", "KILLED"])
        if status == "KILLED" and draw.random() < 0.5:
            tags[names.PRUNED_TAG] = "1"
        record = new_record(
            home / "mlruns" / "records",
            study=draw.choice("ab"),
            name=draw.choice(["n1", "cnn_1", "cnn-1", "it's", "N"]),
            tracking_uri=store.uri,
            params={"model.name": draw.choice(["cnn", "logistic_regression"]), "seed": str(number % 3)},
            tags=tags,
        )
        record.run.start_time = 1000 + 50 * number
        metrics = {"test/accuracy": draw.choice([0.25, 0.5, 0.75, float("nan")])}
        if draw.random() < 0.7:
            record.log_metrics(metrics | {"test/loss": draw.choice([0.1, float("inf")])}, 1)
        record.finish(status)  # type: ignore[arg-type]
        record.run.start_time = 1000 + 50 * number
        record.save()
        store.deliver(record)
    everything = store.runs()
    assert len(everything) == 24
    for text in CONDITIONS:
        wanted = RunFilter(tuple(parse_conditions(text)))
        sent = store.runs(search_filter=wanted.in_mlflow())
        expected = {run.run_id for run in everything if wanted.matches(run)}
        assert {run.run_id for run in sent if wanted.matches(run)} == expected, text


def test_a_run_that_is_not_delivered_is_judged_alike(home: Path) -> None:
    record = new_record(home / "mlruns" / "records", params=CNN, tags={"owner": "me"})
    record.log_metrics({"test/accuracy": 0.9}, 1)
    run = undelivered(record)
    assert RunFilter(tuple(parse_conditions("seed < 8 AND test/accuracy > 0.8 AND owner=me"))).matches(
        run
    )
