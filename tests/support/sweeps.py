"""What a sweep has left in the store of the project, and what it must have."""

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from digitlab import cli
from digitlab.config import project
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun
from tests.support.cli import CHECKOUT


def tree(study: str) -> tuple[list[StoredRun], list[StoredRun]]:
    """The sweeps' own runs of a study, and their trials by name."""
    runs = RunStore(resolve_uri(None)).all_runs(study)
    own = [run for run in runs if run.tags.get("digitlab.kind") == "sweep"]
    trials = [run for run in runs if "trial" in run.tags]
    assert len(own) + len(trials) == len(runs)
    return own, sorted(trials, key=lambda run: int(run.tags["trial"]))


def bits(study: str) -> dict[str, str]:
    return {run.name: run.tags["digitlab.weights"] for run in tree(study)[1]}


def undisturbed(folder: Path, line: list[str]) -> dict[str, str]:
    """The weights of every trial of a sweep that this process trains, in this home."""
    (folder / "conf").symlink_to(CHECKOUT / "conf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITLAB_HOME", str(folder))
        line = [text for text in line if not text.startswith("workers=")]
        with pytest.raises(SystemExit) as end:
            cli.main([*line, "executor=inprocess", "study=sweep"])
        assert end.value.code == 0
        return bits("sweep")


def check_whole(home: Path, expected: dict[str, str], *, epochs: int) -> None:
    """One parent, one child for each trial, all FINISHED, the same bits, no step twice, no remains."""
    check_values(home / "mlruns" / "mlflow.db", expected, epochs=epochs)
    for run in tree("sweep")[1]:
        names = [path for path, _ in RunStore(resolve_uri(None)).artifacts(run)]
        assert {"config.yaml", "predictions.parquet", "weights.safetensors"} <= set(names)
    assert list(all_records(project.records())) == []


def check_values(store: Path, expected: dict[str, str], *, epochs: int) -> None:
    """The same of what the database of a store holds."""
    (own,), trials = tree("sweep")
    assert own.status == "FINISHED"
    assert sorted(run.name for run in trials) == sorted(expected)
    assert {run.status for run in trials} == {"FINISHED"}
    assert not any("digitlab.error" in run.tags for run in [own, *trials])
    assert bits("sweep") == expected
    assert all(run.tags["mlflow.parentRunId"] == own.run_id for run in trials)
    with sqlite3.connect(store) as database:
        twice = database.execute(
            "select run_uuid, key, step from metrics group by run_uuid, key, step having count(*) > 1"
        ).fetchall()
        steps = database.execute(
            "select count(distinct step) from metrics where key = 'train/loss' group by run_uuid"
        ).fetchall()
    assert twice == []
    assert {count for (count,) in steps} == {epochs}


def sweep_of(home: Path) -> Path:
    """The folder of its only sweep."""
    (folder,) = (home / "mlruns" / "sweeps").iterdir()
    return folder


def num_started(home: Path) -> list[int]:
    """How often each trial of it was handed to a worker."""
    lines = (sweep_of(home) / "journal.jsonl").read_text().splitlines()
    started = [line["number"] for line in map(json.loads, lines) if line["event"] == "started"]
    return [started.count(number) for number in sorted(set(started))]


def num_begun_before(moment: float, home: Path) -> int:
    """Trials whose first epoch is older: none of them has begun anew since."""
    with sqlite3.connect(home / "mlruns" / "mlflow.db") as database:
        query = "select min(timestamp) from metrics where key = 'train/loss' group by run_uuid"
        return sum(first < 1000 * moment for (first,) in database.execute(query))


def end_of(controller: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it said."""
    _, output = controller.communicate(timeout=400)
    return controller.returncode, output
