"""Runs found again: filtered, ranked, paged, tagged, noted; on the command line and in Python."""

import json
from pathlib import Path

import pytest

import digitlab as api
from digitlab.tracking import names
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun
from tests.support.cli import Cli
from tests.support.run_folders import new_record

HOUR = 3_600_000


@pytest.fixture
def store(home: Path) -> RunStore:
    """Eight runs of two studies, an hour apart, the newest a minute old; accuracies 0.90 to 0.97."""
    uri = resolve_uri(None)
    store = RunStore(uri)
    for number in range(8):
        record = new_record(
            home / "mlruns" / "records",
            study="old" if number < 3 else "new",
            name=f"run {number}",
            tracking_uri=uri,
            params={
                "model.name": "cnn" if number % 2 else "logistic_regression",
                "optimizer.learning_rate": f"{0.001 * (number + 1):g}",
                "run_name": "null",
            },
            tags={names.NOTE_TAG: "Generated."},
        )
        record.run.start_time -= (7 - number) * HOUR
        record.log_metrics({"test/accuracy": 0.9 + 0.01 * (number * 3 % 8), "test/loss": 0.1}, 1)
        record.finish("FAILED" if number == 5 else "FINISHED")
        store.deliver(record)
    return store


def found(digitlab: Cli, *line: str) -> list[int]:
    result = digitlab("runs", "--json", *line)
    assert result.code == 0, result.err
    return [int(run["name"].split()[1]) for run in json.loads(result.out)]


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ([], [7, 6, 5, 4, 3, 2, 1, 0]),
        (["--status", "failed"], [5]),
        (["--since", "150min"], [7, 6, 5]),
        (["--where", "model.name=cnn and test/accuracy>0.94"], [7, 5]),
        (["--where", "model.name=cnn", "--where", "optimizer.learning_rate < 0.005"], [3, 1]),
        (["--study", "old", "--sort", "test/accuracy", "--limit", "1"], [2]),
        (["--sort", "optimizer.learning_rate", "--limit", "3"], [0, 1, 2]),
        (["--sort", "test/accuracy", "--limit", "2", "--page", "2"], [7, 4]),
        (["--limit", "3", "--page", "3"], [1, 0]),
        (["--where", "seconds > 1e9"], []),
    ],
)
def test_runs_are_filtered_ranked_and_paged(
    line: list[str], numbers: list[int], digitlab: Cli, store: RunStore
) -> None:
    assert found(digitlab, *line) == numbers


def test_python_finds_the_same(store: RunStore) -> None:
    runs = api.runs(where="model.name = cnn AND test/accuracy > 0.9", since="1d", sort="test/accuracy")
    assert [run.name for run in runs] == ["run 5", "run 7", "run 1", "run 3"]
    assert [run.name for run in api.runs("old", sort="test/accuracy", limit=1)] == ["run 2"]
    assert [run.name for run in api.runs(status="FAILED")] == ["run 5"]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (["--where", "test/acuracy > 0.9"], "did you mean test/accuracy"),
        (["--sort", "optimizer.learning_rat"], "did you mean optimizer.learning_rate"),
        (["--where", "model.name"], "NAME OPERATOR VALUE"),
        (["--since", "last week"], "2026-05-31"),
        (["--tag", "owner"], "NAME=VALUE"),
        (["--sweep", "nosuch"], "no run, sweep or study"),
        (["--status", "DONE"], "is not one of"),
    ],
)
def test_what_cannot_be_found_is_told(
    line: list[str], part: str, digitlab: Cli, store: RunStore
) -> None:
    result = digitlab("runs", *line)
    assert result.code == 2
    assert part in result.err
    assert "Traceback" not in result.err


def test_runs_are_tagged_and_found_by_their_tags(digitlab: Cli, store: RunStore) -> None:
    ids = [run.run_id for run in store.runs(limit=2)]
    assert digitlab("tag", *ids, "owner=me", "paper=table 2").code == 0
    assert found(digitlab, "--tag", "owner=me") == [7, 6]
    assert found(digitlab, "--where", "paper = 'table 2'") == [7, 6]
    assert digitlab("tag", "old", "owner=you").code == 0
    assert found(digitlab, "--where", "owner LIKE '%'") == [7, 6, 2, 1, 0]
    assert digitlab("tag", ids[0], "owner=").code == 0
    assert found(digitlab, "--tag", "owner=me") == [6]


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("digitlab.fingerprint=x", "digitlab's own"),
        ("mlflow.user=x", "digitlab's own"),
        ("sweep=x", "digitlab's own"),
        ("=x", "1 to 250"),
        ("a=" + "x" * 6000, "at most 5000"),
    ],
)
def test_what_no_tag_can_be_is_refused(word: str, part: str, digitlab: Cli, store: RunStore) -> None:
    result = digitlab("tag", "old", word)
    assert (result.code, part in result.err) == (2, True), result.err
    assert digitlab("tag", "old").code == 2
    assert digitlab("tag", "owner=me").code == 2


def test_a_note_heads_the_description_and_is_listed(digitlab: Cli, store: RunStore) -> None:
    run_id = store.runs(limit=1)[0].run_id

    def described() -> StoredRun:
        return store.find(run_id)

    assert digitlab("note", run_id[:8], "The one for **table 2**").code == 0
    assert described().tags[names.NOTE_TAG] == "The one for **table 2**\n\nGenerated."
    assert "The one for **table 2**" in digitlab("runs").out
    assert digitlab("note", run_id, "Not that one").code == 0
    assert described().tags[names.NOTE_TAG] == "Not that one\n\nGenerated."
    assert digitlab("note", run_id, "").code == 0
    assert described().tags[names.NOTE_TAG] == "Generated."
    assert names.OWN_NOTE_TAG not in described().tags
    assert digitlab("note", "old", "of a study").code == 2


def test_the_trials_of_a_sweep_are_found_by_its_name(digitlab: Cli) -> None:
    digitlab("train", "epochs=1")
    digitlab("sweep", "epochs=1", "seed=1,2", "executor=inprocess", "sweep.name=pair")
    listed = json.loads(digitlab("runs", "--sweep", "pair", "--json").out)
    assert sorted(run["params"]["seed"] for run in listed) == [1, 2]
    assert all(run["status"] == "FINISHED" for run in listed)
