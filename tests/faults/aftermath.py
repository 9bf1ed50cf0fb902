"""What must hold after a fault, whatever it was, and what its user does then.

check_record, check_store   everything on the disk can be read, and is what it says it is
recover, repeat             the user's commands, after a run and after a sweep
end_of_study                what the store has in the end
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from digitlab.config import project
from digitlab.models.saved import WEIGHTS_FILE, weights_digest
from digitlab.runs import document as documents
from digitlab.runs.checkpoints import FILE, PREVIOUS, load_checkpoint
from digitlab.text import yaml_text
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.run_folder import RunFolder, all_records
from tests.support.cli import Cli, artifact

TERMINAL = {"FINISHED", "FAILED", "KILLED"}
SAME_BYTES = ("weights.safetensors", "predictions.parquet", "per_class.csv")


@dataclasses.dataclass(frozen=True)
class Ended:
    """What must be equal of a run that trained to its end, whatever happened on the way."""

    weights: str
    trace: dict[str, Any]
    steps: dict[str, list[int]]  # of every metric
    artifacts: dict[str, str]  # of those that have the same bytes each time, their SHA-256


def end_of_study(database: Path, study: str, artifacts: Path | None = None) -> dict[str, Ended]:
    """The trained runs by name: each once, complete, no step twice. All others have ended, too.

    artifacts: the folder of a server's; else the addresses are of this machine.
    """
    ended: dict[str, Ended] = {}
    with contextlib.closing(sqlite3.connect(database)) as store:
        for run_id, name, status, address in store.execute(
            "select run_uuid, runs.name, status, runs.artifact_uri from runs "
            "join experiments using (experiment_id) where experiments.name = ?",
            (study,),
        ).fetchall():
            assert status in TERMINAL, f"{name} is {status} for ever"
            tags = dict(_rows(store, "key, value from tags", run_id))
            if status == "FINISHED":
                assert "digitlab.error" not in tags
                assert tags.get("digitlab.reproducible") != "false"
            if status == "FINISHED" and "digitlab.weights" in tags:
                assert name not in ended, "it is there twice"
                place = address.partition(":/")[2]
                folder = artifacts / place if artifacts else artifact(address, ".")
                steps = _rows(store, "key, step from metrics", run_id)
                ended[name] = _ended(folder, tags["digitlab.weights"], steps)
            elif not tags.keys() & {"trial", "digitlab.kind"}:  # a failed trial is tried again anew
                assert _rows(store, "key from metrics", run_id) == [], "what had begun is gone on with"
    assert ended
    return ended


def _rows(store: sqlite3.Connection, what: str, run_id: str) -> list[Any]:
    return sorted(store.execute(f"select {what} where run_uuid = ?", (run_id,)).fetchall())


def _ended(folder: Path, weights: str, rows: list[tuple[str, int]]) -> Ended:
    files = {str(f.relative_to(folder)): f for f in sorted(folder.rglob("*")) if f.is_file()}
    document = documents.parse(files["record.json"].read_bytes())
    assert document.trace is not None
    assert document.trace.weights == weights
    assert weights_digest(load_file(files[WEIGHTS_FILE])) == weights
    steps: dict[str, list[int]] = {}
    for key, step in rows:
        steps.setdefault(key, []).append(step)
    digests = {name: _digest(file) if name in SAME_BYTES else "" for name, file in files.items()}
    return Ended(weights, json.loads(documents.dump(document))["trace"], steps, digests)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_record(home: Path, scratch: Path) -> None:
    """Of every run on this disk: nothing is damaged, and a FINISHED one has its weights."""
    for file in (home / "mlruns" / "records").glob("*/run.json"):
        record = RunFolder.load(file.parent)
        assert record.num_damaged_lines == 0, "lines of metrics.jsonl are damaged"
        if (document := record.artifacts / "record.json").exists():
            documents.parse(document.read_bytes())
        if (config := record.artifacts / "config.yaml").exists():
            yaml_text.read(config)
        said: list[str] = []
        copy = scratch / "copy"  # loading tidies up
        shutil.copytree(file.parent, copy)
        state = load_checkpoint(copy, said.append)
        shutil.rmtree(copy)
        assert not said, said
        is_saved = any((file.parent / name).exists() for name in (FILE, PREVIOUS))
        assert (state is not None) == is_saved, "its checkpoint can be loaded"
        if record.run.status == "FINISHED" and not record.run.is_parent:
            weights = load_file(record.artifacts / WEIGHTS_FILE)
            assert weights_digest(weights) == record.run.tags["digitlab.weights"]


def check_store(database: Path) -> None:
    if database.exists():
        with contextlib.closing(sqlite3.connect(database)) as store:
            assert store.execute("pragma integrity_check").fetchone() == ("ok",)


def recover(code: int, line: list[str], digitlab: Cli) -> None:
    """What a user does after a run, when the cause is gone: look, go on or start anew, deliver."""
    has_store = resolve_uri(None).startswith("http") or (project.mlruns() / "mlflow.db").exists()
    looked = digitlab("runs")
    assert looked.code == 0 or not has_store, looked.err
    records = list(all_records(project.records()))
    statuses = {record.run.status for record in records}
    assert statuses <= TERMINAL
    if code >= 0:
        assert statuses <= {"FINISHED"} if code == 0 else "FINISHED" not in statuses, (
            "it said the truth"
        )
    unfinished = [r for r in records if r.run.status != "FINISHED" and has_begun(r)]
    for record in unfinished:
        _succeed(digitlab, "resume", record.run.record_id)
    if not unfinished and not _is_trained(digitlab, line):
        assert code != 0
        _succeed(digitlab, *line)
    _succeed(digitlab, "sync")


def repeat(line: list[str], digitlab: Cli) -> None:
    """What a user does after a sweep, when the cause is gone: the same command again."""
    _succeed(digitlab, *line)
    _succeed(digitlab, "sync")
    assert list(all_records(project.records())) == []


def has_begun(record: RunFolder) -> bool:
    """Whether it has all that it takes to go on with."""
    return (record.artifacts / "record.json").exists()


def _is_trained(digitlab: Cli, line: list[str]) -> bool:
    listed = digitlab("runs", "--json")
    study = next(word for word in line if word.startswith("study=")).removeprefix("study=")
    runs = json.loads(listed.out) if listed.code == 0 else []
    return any(run["status"] == "FINISHED" and run["study"] == study for run in runs)


def _succeed(digitlab: Cli, *words: str) -> None:
    result = digitlab(*words)
    assert result.code == 0, f"digitlab {' '.join(words)}: {result.err}"
