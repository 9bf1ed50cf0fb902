"""The record on disk: whole after any crash, and honest about processes that died."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from digitlab import provenance
from digitlab.errors import DigitlabError
from digitlab.reaping import close_dead_records
from digitlab.record import Record, all_records, write_atomically


def new_record(folder: Path, **changes: object) -> Record:
    details = {
        "study": "s",
        "name": "n",
        "tracking_uri": "sqlite:///x.db",
        "params": {"seed": "0"},
        "tags": {},
        "process": provenance.this_process(),
    }
    return Record.create(folder, **(details | changes))


def a_dead_process() -> provenance.Process:
    done = subprocess.Popen([sys.executable, "-c", ""])
    process = dataclasses.replace(provenance.this_process(), pid=done.pid)
    done.wait()
    return process


def test_a_record_reads_back_as_written(tmp_path: Path) -> None:
    record = new_record(tmp_path)
    record.log_metrics({"train/loss": 0.1}, step=1)
    record.log_metrics({"train/loss": 0.05}, step=2)
    record.finish("FINISHED", {"note": "x"})
    (read,) = all_records(tmp_path)
    assert read.run == record.run
    assert [line["metrics"]["train/loss"] for line in read.metric_lines()] == [0.1, 0.05]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    record = new_record(tmp_path)
    record.log_metrics({"train/loss": 0.1}, step=1)
    with (record.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "metr')
    assert len(record.metric_lines()) == 1


def test_the_first_end_is_the_true_one(tmp_path: Path) -> None:
    record = new_record(tmp_path)
    record.finish("KILLED")
    record.finish("FINISHED")
    assert Record.load(record.folder).run.status == "KILLED"


def test_a_failed_write_leaves_the_old_content_and_no_corpse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.json"
    write_atomically(file, "old")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert [f for f in tmp_path.iterdir() if f.is_file()] == [file]


def test_a_record_whose_process_is_gone_is_marked_killed(tmp_path: Path) -> None:
    record = new_record(tmp_path, process=a_dead_process())
    record.release()
    said: list[str] = []
    (dead,) = close_dead_records(all_records(tmp_path), said.append)
    assert dead.run.status == "KILLED"
    assert "marked KILLED" in said[0]
    assert close_dead_records(all_records(tmp_path), said.append) == [], "once"


def test_a_record_that_somebody_works_on_is_left_alone(tmp_path: Path) -> None:
    new_record(tmp_path)
    assert close_dead_records(all_records(tmp_path), print) == []


@pytest.mark.parametrize(
    ("change", "is_dead"),
    [
        ({}, False),
        ({"started": "1"}, True),
        ({"boot_id": "another boot"}, True),
        ({"host": "another-host", "boot_id": "another boot"}, False),
    ],
)
def test_host_boot_pid_and_start_tell_whether_a_process_is_dead(
    change: dict[str, str], is_dead: bool
) -> None:
    assert dataclasses.replace(provenance.this_process(), **change).is_dead() is is_dead


def test_a_folder_that_a_kill_has_left_without_a_run_is_taken(tmp_path: Path) -> None:
    """Between the making of the folder and the first line about the run."""
    (tmp_path / "sweep-0001" / "artifacts").mkdir(parents=True)
    record = new_record(tmp_path, record_id="sweep-0001")
    assert Record.load(tmp_path / "sweep-0001").run.status == "RUNNING"
    with pytest.raises(DigitlabError, match="no record can be written"):
        new_record(tmp_path, record_id="sweep-0001")  # which is somebody's
    record.finish("FINISHED")
    record.release()
    with pytest.raises(DigitlabError, match="holds a run already"):
        new_record(tmp_path, record_id="sweep-0001")
