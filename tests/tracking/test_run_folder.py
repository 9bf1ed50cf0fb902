"""The record on disk: whole after any crash, and honest about processes that died."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from digitlab.errors import DigitlabError
from digitlab.text.files import write_atomically
from digitlab.tracking import run_folder
from digitlab.tracking.leftovers import close_dead_records
from digitlab.tracking.names import KIND_TAG
from digitlab.tracking.process import Process, this_process
from digitlab.tracking.run_folder import RunFolder, all_records
from tests.support.run_folders import new_record


def a_dead_process() -> Process:
    done = subprocess.Popen([sys.executable, "-c", ""])
    process = dataclasses.replace(this_process(), pid=done.pid)
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


@pytest.mark.parametrize(
    "damage", [b"null", b"\xff", b"[" * 9999, b'{"step": 2, "time": 1, "metrics": {"a": null}}', b"{}"]
)
def test_damaged_lines_are_left_out_and_the_others_keep_their_places(
    damage: bytes, tmp_path: Path
) -> None:
    record = new_record(tmp_path)
    for step in (1, 2, 3):
        record.log_metrics({"train/loss": 1 / step}, step=step)
    file = record.folder / "metrics.jsonl"
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([lines[0], damage, lines[2], b'{"step": 4, "met']))
    again = RunFolder.load(record.folder)
    assert [line["metrics"] for line in again.metric_lines()] == [
        {"train/loss": 1.0},
        {},
        {"train/loss": 1 / 3},
    ]
    assert again.num_damaged_lines == 1
    again.log_metrics({"train/loss": 0.5}, step=2)  # what is lost may come again, when it goes on
    again.log_metrics({"train/loss": 1 / 3}, step=3)
    assert [line["step"] for line in again.metric_lines()] == [1, 0, 3, 2]


@pytest.mark.parametrize("damage", [b"null", b"\xff", b"[" * 9999, b'{"study": 1}', b"[]", b""])
def test_a_damaged_record_gives_its_place_to_a_new_one_in_the_same_run(
    damage: bytes, tmp_path: Path
) -> None:
    record = new_record(tmp_path, record_id="sweep-1")
    record.delivered.run_id, record.delivered.is_closed = "a1b2", True
    record.save_delivered()
    record.release()
    (record.folder / "run.json").write_bytes(damage)
    other = new_record(tmp_path)
    assert [read.folder for read in all_records(tmp_path)] == [other.folder], "it costs no other"
    assert RunFolder.reopen(record.folder) is None
    again = new_record(tmp_path, record_id="sweep-1")
    assert again.delivered.run_id == "a1b2"
    assert (again.delivered.is_closed, again.delivered.is_stale) == (False, True)
    assert (record.folder / "run.json.damaged").read_bytes() == damage


def test_a_clock_that_is_set_back_makes_no_run_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, real = new_record(tmp_path), time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    record.finish("FINISHED")
    assert record.run.end_time is not None
    assert 0 <= record.run.end_time - record.run.start_time < 60_000
    dead = new_record(tmp_path)
    loaded = RunFolder.load(dead.folder)
    loaded.run.start_time += 3_600_000
    loaded.finish("KILLED")
    assert loaded.run.end_time == loaded.run.start_time


def test_the_first_end_is_the_true_one(tmp_path: Path) -> None:
    record = new_record(tmp_path)
    record.finish("KILLED")
    record.finish("FINISHED")
    assert RunFolder.load(record.folder).run.status == "KILLED"


def test_an_end_that_could_not_be_written_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = new_record(tmp_path)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(run_folder, "write_atomically", mock.Mock(side_effect=OSError("full")))
        with pytest.raises(OSError, match="full"):
            record.finish("FINISHED")
    record.finish("FAILED", {"error": "the disk was full"})
    (read,) = all_records(tmp_path)
    assert (read.run.status, read.run.tags["error"]) == ("FAILED", "the disk was full")


@pytest.mark.parametrize(("tags", "goes_on"), [({}, False), ({KIND_TAG: "sweep"}, True)])
def test_a_finished_run_is_not_gone_on_with_but_a_sweeps_own_is(
    tmp_path: Path, tags: dict[str, str], goes_on: bool
) -> None:
    record = new_record(tmp_path)
    record.run.is_resumable = True
    record.finish("FINISHED", tags)
    record.release()
    assert (RunFolder.reopen(record.folder) is not None) == goes_on


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
    assert dataclasses.replace(this_process(), **change).is_dead() is is_dead


def test_a_folder_that_a_kill_has_left_without_a_run_is_taken(tmp_path: Path) -> None:
    """Between the making of the folder and the first line about the run."""
    (tmp_path / "sweep-0001" / "artifacts").mkdir(parents=True)
    record = new_record(tmp_path, record_id="sweep-0001")
    assert RunFolder.load(tmp_path / "sweep-0001").run.status == "RUNNING"
    with pytest.raises(DigitlabError, match="no record can be written"):
        new_record(tmp_path, record_id="sweep-0001")  # which is somebody's
    record.finish("FINISHED")
    record.release()
    with pytest.raises(DigitlabError, match="holds a run already"):
        new_record(tmp_path, record_id="sweep-0001")
