"""Delivery to real stores: SQLite files and a real MLflow server."""

import contextlib
import http.server
import itertools
import multiprocessing
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from digitlab.config import project
from digitlab.errors import TrackingError, UsageError
from digitlab.sweep.workers.executors.worker import warm_up
from digitlab.tracking import delivery
from digitlab.tracking.connection import store_process
from digitlab.tracking.connection.location import resolve_uri, unreachable
from digitlab.tracking.connection.sqlite_store import ensure_store
from digitlab.tracking.connection.store_process import STORES, StoreProcess
from digitlab.tracking.delivery import SYNC_SECONDS, Delivery
from digitlab.tracking.run_folder import RunFolder, all_records
from digitlab.tracking.store import RunStore
from tests.support.cli import Cli, files_end_at, in_ci
from tests.support.run_folders import new_record
from tests.support.servers import free_port, start_server


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("server"))


def filled_record(uri: str, study: str) -> RunFolder:
    record = new_record(project.records(), study=study, name="first", tracking_uri=uri)
    for epoch in (1, 2, 3):
        record.log_metrics({"train/loss": 1 / epoch, "validation/accuracy": epoch / 10}, step=epoch)
    (record.artifacts / "config.yaml").write_text("seed: 0\n")
    record.run.dataset = {
        "name": "digits",
        "digest": "0123",
        "source_type": "code",
        "source": "{}",
        "profile": "{}",
    }
    return record


def test_a_delivered_run_reads_back_whole(uri: str, tmp_path: Path) -> None:
    store = RunStore(uri)
    record = filled_record(uri, study=f"whole {tmp_path}")
    store.deliver(record)
    (running,) = store.runs(record.run.study)
    assert running.status == "RUNNING"
    assert running.metrics["train/loss"] == pytest.approx(1 / 3)
    record.finish("FINISHED", {"note": "done"})
    store.deliver(record)
    run = store.find(running.run_id[:10])
    assert (run.status, run.name, run.params["seed"], run.tags["note"]) == (
        "FINISHED",
        "first",
        "0",
        "done",
    )
    assert store.history(run, "train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert store.artifacts(run) == [("config.yaml", 8)]
    assert store.content(run, "config.yaml") == b"seed: 0\n"
    assert not record.folder.exists(), "the store has all of it"


@pytest.mark.fault("F7")
@pytest.mark.parametrize(
    "method", ["create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated"]
)
@pytest.mark.parametrize("is_done", [False, True])
def test_delivery_can_be_broken_anywhere_and_repeated(
    method: str, is_done: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call fails before or after it took effect; repeating gives one complete run."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    store = RunStore(f"sqlite:///{tmp_path / 'store.db'}")
    ensure_store(tmp_path / "store.db")
    record = filled_record(store.uri, study="broken")
    record.finish("FINISHED")
    owner = LocalArtifactRepository if method == "log_artifacts" else store._client
    real = getattr(owner, method)

    def break_off(*arguments: object, **named: object) -> None:
        if is_done:
            real(*arguments, **named)
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, break_off)
        with pytest.raises(TrackingError, match="gone"):
            store.deliver(record)
    store.deliver(RunFolder.load(record.folder))
    (run,) = store.runs("broken")
    assert run.status == "FINISHED"
    assert run.params == {"seed": "0"}
    assert len(store.history(run, "train/loss")) == 3
    assert store.artifacts(run) == [("config.yaml", 8)]


def test_long_tags_are_cut_to_what_mlflow_takes(tmp_path: Path) -> None:
    store = RunStore(f"sqlite:///{tmp_path / 'store.db'}")
    record = filled_record(store.uri, study="long")
    record.run.tags["digitlab.command"] = "x" * 20_000
    record.finish("FINISHED")
    store.deliver(record)
    (run,) = store.runs("long")
    assert len(run.tags["digitlab.command"]) == 8000
    assert run.tags["digitlab.command"].endswith("…")


def deliver_one(
    uri: str, environment: dict[str, str], gate: "multiprocessing.synchronize.Barrier"
) -> None:
    os.environ.update(environment)
    record = filled_record(uri, study="race")
    record.finish("FINISHED")
    import mlflow.client  # noqa: F401  (so that all open the store at the same moment)

    gate.wait()
    RunStore(uri).deliver(record)


@pytest.mark.fault("F9")
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("team", marks=in_ci)])
def test_eight_processes_start_together_on_a_fresh_store(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """On a server: in a fresh study."""
    fresh = f"sqlite:///{tmp_path / 'new' / 'store.db'}"
    uri = fresh if kind == "sqlite" else request.getfixturevalue("team").uri
    warm_up()
    context = multiprocessing.get_context("forkserver")  # which imports once
    gate, environment = context.Barrier(8), dict(os.environ)
    processes = [context.Process(target=deliver_one, args=(uri, environment, gate)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    store = RunStore(uri)
    runs = store.runs("race")
    assert [run.status for run in runs] == ["FINISHED"] * 8
    for run in runs:
        assert store.history(run, "train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
        assert store.artifacts(run) == [("config.yaml", 8)]


@pytest.mark.fault("F8")
def test_a_locked_store_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a run waits 10 s for the lock, `digitlab sync` longer."""
    monkeypatch.setattr(store_process, "LEFT_ALONE_SECONDS", 0.0)
    store = RunStore(f"sqlite:///{tmp_path / 'store.db'}")
    record = filled_record(store.uri, study="locked")
    record.finish("FINISHED")
    ensure_store(tmp_path / "store.db")
    STORES.answer(STORES.ask(store.uri, str), seconds=60)  # it has imported
    other = sqlite3.connect(tmp_path / "store.db", check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    assert not Delivery(record, print).finish()
    assert time.monotonic() - started < 14
    unlock = threading.Timer(12, other.rollback)
    unlock.start()
    assert Delivery(record, print).finish(seconds=SYNC_SECONDS)
    unlock.join()
    other.close()
    assert [run.status for run in store.runs("locked")] == ["FINISHED"]


def test_a_record_that_cannot_be_read_waits_and_that_is_no_failure_of_its_run(tmp_path: Path) -> None:
    record = filled_record(f"sqlite:///{tmp_path / 'store.db'}", study="unreadable")
    record.finish("FINISHED")
    lines = record.folder / "metrics.jsonl"
    lines.rename(kept := tmp_path / "kept")
    lines.mkdir()
    said: list[str] = []
    assert not Delivery(record, said.append).finish()
    assert "not delivered: " in said[0]
    lines.rmdir()
    kept.rename(lines)
    assert Delivery(record, said.append).finish(seconds=SYNC_SECONDS)


@pytest.mark.fault("F10")
def test_a_run_survives_a_server_that_is_away_and_sync_delivers_it(
    tmp_path: Path, digitlab: Cli
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    started = time.monotonic()
    result = digitlab("train", "epochs=1", f"tracking.uri={uri}", "study=away")
    assert result.code == 0
    assert f"{uri} does not answer" in result.err
    assert time.monotonic() - started < 60, "no long silence"
    assert "digitlab sync" in result.err
    (record,) = all_records(project.records())
    assert record.run.status == "FINISHED"
    assert f"not yet delivered to {uri}: 1" in digitlab("runs").err
    assert "test/accuracy" in digitlab("show", record.run.record_id).out
    assert digitlab("sync").code == 4, "still away"
    assert digitlab("doctor").code == 1

    server = start_server(tmp_path, port)
    try:
        assert digitlab("sync").code == 0
        (run,) = RunStore(uri).runs("away")
        assert run.status == "FINISHED"
        assert "test/accuracy" in run.metrics
        assert list(all_records(project.records())) == []
        assert "nothing to deliver" in digitlab("sync").out
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_record_can_go_to_another_store(tmp_path: Path, digitlab: Cli) -> None:
    digitlab("train", "epochs=1", "tracking.uri=http://127.0.0.1:9", "study=moved")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert digitlab("sync", "--tracking-uri", other).code == 0
    assert [run.status for run in RunStore(other).runs("moved")] == ["FINISHED"]


@pytest.mark.fault("F11")
def test_a_server_that_dies_in_the_middle_of_a_run_stops_nothing(
    tmp_path: Path, digitlab: Cli, digitlab_process: Callable[..., subprocess.Popen[str]]
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    server = start_server(tmp_path, port)
    run = digitlab_process("train", "model=cnn", "epochs=1000", f"tracking.uri={uri}", "study=cut")
    store = RunStore(uri)
    deadline = time.monotonic() + 60
    while store.experiment_id("cut") is None or not store.runs("cut"):
        assert time.monotonic() < deadline, "the run never showed up while it was running"
        time.sleep(0.2)
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    assert run.stderr is not None
    assert any("training goes on" in line for line in run.stderr), "it says so"
    epoch = next(line for line in run.stderr if line.startswith("epoch ")).split("/")[0]
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors

    server = start_server(tmp_path, port)
    try:
        assert digitlab("sync").code == 0
        (stored,) = store.runs("cut")
        assert stored.status == "KILLED"
        steps = [step for step, _ in store.history(stored, "train/loss")]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= int(epoch.removeprefix("epoch "))
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_deleted_study_is_refused_with_the_way_out(tmp_path: Path) -> None:
    store = RunStore(f"sqlite:///{tmp_path / 'store.db'}")
    record = filled_record(store.uri, study="gone")
    store.deliver(record)
    store._client.delete_experiment(record.delivered.experiment_id)
    with pytest.raises(TrackingError, match=r"was deleted.*digitlab restore gone"):
        store.deliver(filled_record(store.uri, study="gone"))


def test_a_shortened_id_must_be_unique_and_known(tmp_path: Path) -> None:
    store = RunStore(f"sqlite:///{tmp_path / 'store.db'}")
    for _ in range(17):  # two of them begin with the same of 16 digits
        record = filled_record(store.uri, study="many")
        record.finish("FINISHED")
        store.deliver(record)
    first = [run.run_id[0] for run in store.runs("many")]
    shared = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(UsageError, match="is the start of"):
        store.find(shared)
    with pytest.raises(UsageError, match="no run"):
        store.find("f" * 32)
    with pytest.raises(UsageError, match="characters 0-9 and a-f"):
        store.find("x' OR 1=1")


def test_the_store_is_chosen_by_knob_then_environment_then_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_uri(None) == f"sqlite:///{home / 'mlruns' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert resolve_uri(None) == "http://127.0.0.1:1"
    assert resolve_uri("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"
    with pytest.raises(UsageError, match="MLflow no longer writes folders"):
        resolve_uri("./mlruns")


def test_a_silent_port_is_told_within_seconds() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # accepts and never answers
        started = time.monotonic()
        assert "does not answer" in (unreachable(f"http://127.0.0.1:{listener.getsockname()[1]}") or "")
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", b"\0" * 100_000]
)
def test_whatever_answers_that_is_no_server_is_told(answer: bytes) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert "does not answer" in (unreachable(f"http://127.0.0.1:{listener.getsockname()[1]}") or "")
        thread.join()


def test_an_answer_that_drips_in_is_told_within_seconds() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        told = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while not told.wait(0.5):
                    connection.sendall(b"H")

        thread = threading.Thread(target=serve)
        thread.start()
        started = time.monotonic()
        assert "nothing within 3 s" in (
            unreachable(f"http://127.0.0.1:{listener.getsockname()[1]}") or ""
        )
        assert time.monotonic() - started < 5
        told.set()
        thread.join()


def test_the_server_is_reached_through_its_health_page(server: str) -> None:
    assert unreachable(server) is None
    assert urllib.request.urlopen(f"{server}/health").status == 200


@pytest.mark.fault("F12")
def test_a_store_on_a_full_disk_is_one_line(digitlab: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert digitlab("train", "epochs=1", "record.plots=never").code == 0
    store = RunStore(resolve_uri(None))
    run_id = store.runs()[0].run_id
    size = (project.mlruns() / "mlflow.db").stat().st_size

    def fill() -> None:
        for number in range(200):
            store.set_tag(run_id, f"long{number}", "x" * 4000)

    with files_end_at(size), pytest.raises(TrackingError) as told:
        fill()
    assert re.search("disk is full|disk I/O error|File too large", str(told.value))
    assert "Traceback" not in capsys.readouterr().err


class _Hostile(http.server.BaseHTTPRequestHandler):
    """Says that it is well, and answers whatever else it is asked in the server's `way`."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send_response(200)
            self.end_headers()
            return
        with contextlib.suppress(OSError):
            self.misbehave(self.server.way)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        self.do_GET()

    def misbehave(self, way: str) -> None:
        if way == "500":
            self.send_error(500)
            return
        if way == "not HTTP":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            return
        if way == "hangs":
            self.server.over.wait()  # type: ignore[attr-defined]
            return
        self.send_response(200)
        self.end_headers()
        while way == "endless":
            self.wfile.write(b" " * (1 << 20))
        while not self.server.over.wait(0.2):  # type: ignore[attr-defined]
            self.wfile.write(b" ")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(params=["not HTTP", "500", "hangs", "drips", "endless"])
def hostile(request: pytest.FixtureRequest) -> Iterator[str]:
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    listening.way, listening.over = request.param, threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_address[1]}"
    listening.over.set()  # type: ignore[attr-defined]
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.mark.fault("F11")
def test_no_training_waits_for_its_store_whatever_that_does(
    hostile: str, digitlab: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "END_SECONDS", 2.0)
    monkeypatch.setattr(delivery, "PUSH_EVERY_SECONDS", 0.2)
    STORES.answer(STORES.ask(f"sqlite:///{tmp_path / 'any.db'}", str), seconds=60)  # it has imported
    result = digitlab("train", "epochs=100", "record.plots=never", f"tracking.uri={hostile}")
    over = time.time()
    assert result.code == 0, result.err
    assert "FINISHED" in result.out
    assert "not delivered" in result.err
    (record,) = all_records(project.records())
    assert record.run.status == "FINISHED"
    times = [line["time"] for line in record.metric_lines()]
    assert len(times) == 101
    assert max(after - before for before, after in itertools.pairwise(times)) < 1000, "ms"
    assert over - times[-1] / 1000 < 30, "its files, 2 s of patience, 4 s for reading without end"
    store = f"sqlite:///{tmp_path / 'any.db'}"
    assert digitlab("sync", "--tracking-uri", store).code == 0
    (run,) = RunStore(store).runs()
    assert len(RunStore(store).history(run, "train/loss")) == 100


@pytest.mark.parametrize("hostile", ["hangs"], indirect=True)
def test_a_sweep_goes_on_without_a_store_that_hangs(
    hostile: str, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "END_SECONDS", 2.0)
    monkeypatch.setattr(delivery, "CALL_SECONDS", 2.0)
    result = digitlab(
        *("sweep", "seed=range(4)", "epochs=1", "executor=inprocess", f"tracking.uri={hostile}")
    )
    assert result.code == 0, result.err
    assert "4 finished" in result.err
    assert "did not answer just now" in result.err
    assert [record.run.status for record in all_records(project.records())] == ["FINISHED"] * 5


class _Losing(http.server.BaseHTTPRequestHandler):
    """Passes all on to a server, but the answer to the first request for a new run is lost."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
        headers = {"Content-Type": self.headers.get("Content-Type", "")}
        address = f"{self.server.behind}{self.path}"  # type: ignore[attr-defined]
        request = urllib.request.Request(address, body, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as answer:
                code, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            code, content = error.code, error.read()
        if "/runs/create" in self.path and self.server.ways:  # type: ignore[attr-defined]
            if self.server.ways.pop() == "reset":  # type: ignore[attr-defined]
                self.close_connection = True
                return
            code = 500
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.mark.parametrize("way", ["reset", "500"])
def test_a_run_whose_creation_was_not_confirmed_is_created_once(
    way: str, server: str, tmp_path: Path
) -> None:
    between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Losing)
    between.behind, between.ways = server, [way]  # type: ignore[attr-defined]
    thread = threading.Thread(target=between.serve_forever)
    thread.start()
    try:
        uri = f"http://127.0.0.1:{between.server_address[1]}"
        record = filled_record(uri, study=f"once {tmp_path}")
        record.finish("FINISHED")
        with pytest.raises(TrackingError):
            RunStore(uri).deliver(record)
        RunStore(uri).deliver(RunFolder.load(record.folder))
    finally:
        between.shutdown()
        thread.join()
        between.server_close()
    assert [run.status for run in RunStore(server).runs(record.run.study)] == ["FINISHED"]


NUM_SUMMANDS = 30_000_000  # to be added in about a second


@pytest.fixture
def stores() -> Iterator[StoreProcess]:
    process = StoreProcess()
    yield process
    process.stop()


def test_what_talks_to_a_store_may_hang_swell_or_die(stores: StoreProcess, tmp_path: Path) -> None:
    hangs, swells, dies, works = (f"sqlite:///{tmp_path / str(number)}.db" for number in range(4))
    with pytest.raises(TrackingError, match="MemoryError"):
        stores.answer(stores.ask(swells, bytes, 3 << 30), seconds=20)
    with pytest.raises(TrackingError, match="was ended"):
        stores.answer(stores.ask(dies, os._exit, 3), seconds=20)
    number = stores.ask(hangs, time.sleep, 60)
    behind = stores.ask(works, str, 1)
    with pytest.raises(TrackingError, match="does not answer"):
        stores.answer(number, seconds=0.5)
    assert stores.is_answered(behind), "that it will not be answered"
    with pytest.raises(TrackingError, match="did not answer just now"):
        stores.ask(hangs, str, 1)
    assert stores.answer(stores.ask(works, str, 1), seconds=20) == "1"


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="not told how long it computes")
def test_a_busy_machine_is_no_fault_of_the_store(stores: StoreProcess) -> None:
    """Computing is not waiting, up to twice the limit."""
    assert stores.answer(stores.ask("", str, 1), seconds=20) == "1", "it has begun"
    started = time.process_time_ns()
    total = sum(range(NUM_SUMMANDS))
    seconds = (time.process_time_ns() - started) / 1e9  # of a processor, for a second process the same
    assert stores.answer(stores.ask("", sum, range(NUM_SUMMANDS)), seconds=seconds / 1.4) == total
    with pytest.raises(TrackingError, match="does not answer"):
        stores.answer(stores.ask("", sum, range(NUM_SUMMANDS)), seconds=seconds / 4)


def test_a_run_may_end_while_its_last_epochs_are_still_to_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PUSH_EVERY_SECONDS", 0.0)
    store = RunStore(f"sqlite:///{tmp_path / 'store.db'}")
    record = filled_record(store.uri, study="overtaken")
    under_way = Delivery(record, print)
    STORES.ask(store.uri, time.sleep, 0.5)
    under_way.push()
    record.finish("FINISHED")
    assert under_way.finish()
    (run,) = store.runs("overtaken")
    assert (run.run_id, run.status) == (record.delivered.run_id, "FINISHED")
    assert not record.folder.exists()


def test_what_talks_to_a_store_ends_with_its_owner(
    digitlab_process: Callable[..., subprocess.Popen[str]],
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # accepts and never answers
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        run = digitlab_process("train", "epochs=100000", f"tracking.uri={address}")
        deadline = time.monotonic() + 60
        while not (helpers := psutil.Process(run.pid).children()):
            assert time.monotonic() < deadline, "it was never started"
            time.sleep(0.05)
        run.kill()
        _, alive = psutil.wait_procs(helpers, timeout=10)
        assert not alive


def test_a_database_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "text.db").write_text("no database, though one may think so\n" * 100)
    for name in ("folder.db", "text.db"):
        started = time.monotonic()
        with pytest.raises(TrackingError, match=f"{name} is no tracking store"):
            RunStore(f"sqlite:///{tmp_path / name}").runs()
        assert time.monotonic() - started < 10
