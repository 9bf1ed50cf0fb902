"""What recording costs: `make bench-store`, or `python -m tests.benchmarks.store [RUNS [STORE ...]]`.

A real run is trained once. Every writer then writes copies of its record, each under an id of its own,
and delivers each as a run does: after half of its epochs, and at its end. Nothing is trained meanwhile.
STORE: sqlite, or postgresql: the server of `make server`, with passwords and one process.
"""

import multiprocessing
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digitlab.config import project
from digitlab.sweep.workers.executors.worker import warm_up
from digitlab.tracking.process import this_process
from digitlab.tracking.run_folder import RunFolder, all_records
from digitlab.tracking.store import RunStore
from tests.benchmarks.processes import DIGITLAB, home
from tests.benchmarks.sweeps import load, say_machine, title, verdict
from tests.support.servers import TeamServer, missing_for_a_team

RUNS, WRITERS, EPOCHS = 1000, 8, 20
READS = {"get_experiment_by_name", "search_runs", "get_run"}
AWAY = "http://127.0.0.1:9"  # where nothing listens: the record stays


@dataclass
class Written:
    """By one writer: metrics, and seconds of each call that writes and of each run's deliveries."""

    metrics: int = 0
    writes: list[float] = field(default_factory=list)
    calls: int = 0
    runs: list[float] = field(default_factory=list)


class Timed:
    """MLflow's client with a clock."""

    def __init__(self, client: Any, written: Written) -> None:
        self._client, self._written = client, written

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._client, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return real(*arguments, **named)
            finally:
                self._written.calls += 1
                if method not in READS:
                    self._written.writes.append(time.perf_counter() - started)

        return timed


class SqliteFile:
    """A store in a file: its counter of changes counts transactions that wrote."""

    def __init__(self) -> None:
        self.file = project.mlruns() / "mlflow.db"
        self.uri = f"sqlite:///{self.file}"

    def metrics(self) -> int:
        with closing(sqlite3.connect(self.file)) as store:
            return int(store.execute("SELECT count(*) FROM metrics").fetchone()[0])

    def transactions(self) -> int:
        with self.file.open("rb") as file:
            return int.from_bytes(file.read(28)[24:])

    def requests(self) -> int:
        return 0


class PostgresqlServer:
    def __init__(self, server: TeamServer) -> None:
        self.server, self.uri = server, server.uri

    def metrics(self) -> int:
        return int(self.server.query("SELECT count(*) FROM metrics")[0][0])

    def transactions(self) -> int:
        """Only one that writes gets a number."""
        newest = "SELECT txid_snapshot_xmax(txid_current_snapshot())"
        return int(self.server.query(newest)[0][0])

    def requests(self) -> int:
        return sum(
            "HTTP/1.1" in line and "/health" not in line for line in self.server.log().splitlines()
        )


def main() -> None:
    runs, names = int((sys.argv[1:] or [RUNS])[0]), sys.argv[2:] or list(STORES)
    if unknown := [name for name in names if name not in STORES]:
        sys.exit(f"stores are {', '.join(STORES)}; got {', '.join(unknown)}")
    say_machine()
    with home() as environment:
        os.environ.update(environment)
        template = trained(environment)
        warm_up()
        for name in names:
            title(f"{name}: {runs} runs of {EPOCHS} epochs by {WRITERS} writers")
            with STORES[name]() as store:
                measure(store, template, runs)
    print(f"\nload average at the end: {load()}")


def trained(environment: dict[str, str]) -> Path:
    """The run folder of a real run that was not delivered, out of the way of `digitlab sync`."""
    line = ["train", f"epochs={EPOCHS}", "record.plots=never", f"tracking.uri={AWAY}"]
    subprocess.run([*DIGITLAB, *line], env=environment, check=True, capture_output=True)
    (record,) = all_records(project.records())
    return record.folder.rename(project.home() / "template")


@contextmanager
def sqlite_file() -> Iterator[SqliteFile]:
    store = SqliteFile()
    deliver_one(store.uri)
    yield store


@contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    if missing := missing_for_a_team():
        sys.exit(f"missing: {missing}")
    server = TeamServer()
    try:
        server.start()
        os.environ.update(server.login("bench"))
        deliver_one(server.uri)
        yield PostgresqlServer(server)
    finally:
        server.delete()


STORES = {"sqlite": sqlite_file, "postgresql": postgresql_server}


def deliver_one(uri: str) -> None:
    """So that the store is there, and the study."""
    write(uri, project.home() / "template", 1, Written(), RunStore(uri))


def measure(store: SqliteFile | PostgresqlServer, template: Path, runs: int) -> None:
    context = multiprocessing.get_context("forkserver")
    before = store.metrics(), store.transactions(), store.requests()
    shares = [runs // WRITERS + (number < runs % WRITERS) for number in range(WRITERS)]
    gate, results = context.Barrier(WRITERS + 1), context.SimpleQueue()
    arguments = [(store.uri, template, share, gate, results, dict(os.environ)) for share in shares]
    writers = [context.Process(target=writer, args=each) for each in arguments]
    for each in writers:
        each.start()
    gate.wait()
    started = time.perf_counter()
    written = [results.get() for _ in writers]
    wall = time.perf_counter() - started
    for each in writers:
        each.join()
    metrics, transactions, requests = (
        after - then
        for after, then in zip(
            (store.metrics(), store.transactions(), store.requests()), before, strict=True
        )
    )
    writes = sorted(seconds for each in written for seconds in each.writes)
    times = [seconds for each in written for seconds in each.runs]
    print(f"  {runs / wall:8.1f} runs a second")
    print(f"  {1000 * statistics.median(times):8.0f} ms a run, median, of a writer's time")
    print(
        f"  {1000 * writes[int(0.99 * len(writes))]:8.0f} ms a write, 99th percentile; median "
        f"{1000 * statistics.median(writes):.0f}, longest {1000 * writes[-1]:.0f}"
    )
    print(f"  {sum(each.calls for each in written) / runs:8.1f} calls of MLflow's client a run")
    print(f"  {requests / runs:8.1f} requests a run, with files" * bool(requests))
    print(f"  {transactions / runs:8.1f} transactions that write a run")
    sent = sum(each.metrics for each in written)
    verdict(metrics == sent, f"  {metrics} metrics in the store, {sent} were sent")


def writer(
    uri: str, template: Path, runs: int, gate: Any, results: Any, environment: dict[str, str]
) -> None:
    os.environ.update(environment)
    store, written = RunStore(uri), Written()
    store.__dict__["_client"] = Timed(store._client, written)
    gate.wait()
    write(uri, template, runs, written, store)
    results.put(written)


def write(uri: str, template: Path, runs: int, written: Written, store: RunStore) -> None:
    whole = RunFolder.load(template)
    lines = whole.metric_lines()
    for _ in range(runs):
        record = RunFolder.create(
            project.records(),
            study="load",
            name=whole.run.name,
            tracking_uri=uri,
            params=whole.run.params,
            tags=dict(whole.run.tags),
            dataset=whole.run.dataset,
            process=this_process(),
        )
        seconds = 0.0
        for half in (lines[: EPOCHS // 2], lines[EPOCHS // 2 :]):
            for line in half:
                record.log_metrics(line["metrics"], line["step"])
                written.metrics += len(line["metrics"])
            if half is not lines[: EPOCHS // 2] and half[-1] is lines[-1]:
                shutil.copytree(whole.artifacts, record.artifacts, dirs_exist_ok=True)
                record.finish("FINISHED")
                record.release()
            started = time.perf_counter()
            store.deliver(record)
            seconds += time.perf_counter() - started
        written.runs.append(seconds)


if __name__ == "__main__":
    main()
