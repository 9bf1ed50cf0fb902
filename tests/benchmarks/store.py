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
from dataclasses import astuple, dataclass, field
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
    """By one writer: metrics, seconds of each call that writes and of each run's deliveries."""

    metrics: int = 0
    writes: list[float] = field(default_factory=list)
    calls: int = 0
    cpu: float = 0.0
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


@dataclass(frozen=True)
class Totals:
    """Of a store, since it was made. cpu: seconds of the processes that keep it, not of writers."""

    metrics: int
    transactions: int
    requests: int
    bytes: int
    cpu: float

    def __sub__(self, before: "Totals") -> "Totals":
        return Totals(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))


class SqliteFile:
    """A store in a file: its counter of changes counts transactions that wrote."""

    def __init__(self) -> None:
        self.file = project.mlruns() / "mlflow.db"
        self.uri = f"sqlite:///{self.file}"

    def totals(self) -> Totals:
        with closing(sqlite3.connect(self.file)) as store:
            (metrics,) = store.execute("SELECT count(*) FROM metrics").fetchone()
        with self.file.open("rb") as file:
            transactions = int.from_bytes(file.read(28)[24:])
        return Totals(metrics, transactions, 0, self.file.stat().st_size, 0.0)


class PostgresqlServer:
    def __init__(self, server: TeamServer) -> None:
        self.server, self.uri = server, server.uri

    def totals(self) -> Totals:
        """Only a transaction that writes gets a number."""
        query = "(SELECT count(*) FROM metrics), txid_snapshot_xmax(txid_current_snapshot())"
        ((metrics, newest, size),) = self.server.query(f"SELECT {query}, pg_database_size('digitlab')")
        lines = self.server.log().splitlines()
        requests = sum("HTTP/1.1" in line and "/health" not in line for line in lines)
        return Totals(int(metrics), int(newest), requests, int(size), self.server.cpu_seconds())


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
    before = store.totals()
    written, wall = written_by_all(store.uri, template, runs)
    did = store.totals() - before
    writes = sorted(seconds for each in written for seconds in each.writes)
    times = [seconds for each in written for seconds in each.runs]
    in_writers = 1000 * sum(each.cpu for each in written) / runs
    in_store = 1000 * did.cpu / runs
    print(f"  {runs / wall:8.1f} runs a second; a run is under way {median_ms(times):.0f} ms")
    print(
        f"  {1000 * writes[int(0.99 * len(writes))]:8.0f} ms a write, 99th percentile; "
        f"median {median_ms(writes):.0f}, longest {1000 * writes[-1]:.0f}"
    )
    print(f"  {sum(each.calls for each in written) / runs:8.1f} calls of MLflow's client a run")
    if did.requests:
        print(f"  {did.requests / runs:8.1f} requests a run, with its files")
    print(f"  {did.transactions / runs:8.1f} transactions that write a run")
    print(f"  {in_writers:8.0f} ms CPU a run in its writer, {in_store:.0f} in the store's server")
    print(f"  {did.bytes / runs / 1000:8.1f} kB of the database a run")
    sent = sum(each.metrics for each in written)
    verdict(did.metrics == sent, f"  {did.metrics} metrics in the store, {sent} were sent")


def median_ms(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds)


def written_by_all(uri: str, template: Path, runs: int) -> tuple[list[Written], float]:
    """By writers that begin together; and the seconds until the last has ended."""
    context = multiprocessing.get_context("forkserver")
    gate, results = context.Barrier(WRITERS + 1), context.SimpleQueue()
    shares = [runs // WRITERS + (number < runs % WRITERS) for number in range(WRITERS)]
    writers = [
        context.Process(target=writer, args=(uri, template, share, gate, results, dict(os.environ)))
        for share in shares
    ]
    for each in writers:
        each.start()
    gate.wait()
    started = time.perf_counter()
    written = [results.get() for _ in writers]
    wall = time.perf_counter() - started
    for each in writers:
        each.join()
    return written, wall


def writer(
    uri: str, template: Path, runs: int, gate: Any, results: Any, environment: dict[str, str]
) -> None:
    os.environ.update(environment)
    store, written = RunStore(uri), Written()
    store.__dict__["_client"] = Timed(store._client, written)
    gate.wait()
    before = time.process_time()
    write(uri, template, runs, written, store)
    written.cpu = time.process_time() - before
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
        halves = lines[: EPOCHS // 2], lines[EPOCHS // 2 :]
        seconds = deliver(store, record, halves[0])
        shutil.copytree(whole.artifacts, record.artifacts, dirs_exist_ok=True)
        record.finish("FINISHED")
        record.release()
        written.runs.append(seconds + deliver(store, record, halves[1]))
        written.metrics += sum(len(line["metrics"]) for line in lines)


def deliver(store: RunStore, record: RunFolder, lines: list[dict[str, Any]]) -> float:
    """Log these lines, and bring the store up to date; returns the seconds of the latter."""
    for line in lines:
        record.log_metrics(line["metrics"], line["step"])
    started = time.perf_counter()
    store.deliver(record)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
