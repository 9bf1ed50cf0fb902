"""Dask's distributed: a scheduler that runs somewhere, or one that ends with the sweep.

A Dask worker does each job in a process that ends with the worker, and is kept for the next job.
"""

import contextlib
import json
import queue
import secrets
import socket
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from digitlab.errors import UsageError
from digitlab.sweep.settings import DaskSettings
from digitlab.sweep.workers.cores import usable_cores
from digitlab.sweep.workers.executors.executor import Needs, WorkerDied
from digitlab.sweep.workers.executors.jobs import Jobs
from digitlab.text.terminal import say
from digitlab.text.throttle import Throttle

CONNECT_SECONDS = 10
COUNT_EVERY_SECONDS = 2.0
LOOPBACK = "127.0.0.1:0"  # Dask serves its state over HTTP, to all the world unless told otherwise
ENDED = ("finished", "error", "cancelled", "lost")


class Dask(Jobs):
    """The executor over Dask."""

    def __init__(self, settings: DaskSettings, needs: Needs) -> None:
        cluster = _Cluster(settings, needs)
        super().__init__(cluster, name=settings.name, tasks_per_job=settings.trials_per_job)


class _Cluster:
    ask_every_seconds = 1.0

    def __init__(self, settings: DaskSettings, needs: Needs) -> None:
        self._address, self._most = settings.scheduler, settings.workers
        self._num_local = settings.workers or max(usable_cores() // needs.threads, 1)
        self._client: Any = None
        self._futures: dict[str, Any] = {}
        self._counting, self._num_threads = Throttle(COUNT_EVERY_SECONDS), 0

    @property
    def num_workers(self) -> int:
        """Of a scheduler that runs: the threads that its workers have now, or fewer if so chosen."""
        if self._address is None:
            return self._num_local
        if self._counting.passes() and (self._client is None or self._is_connected):
            with self._connected() as client:
                self._num_threads = sum(client.nthreads().values())
        return max(min(self._num_threads, self._most or self._num_threads), 1)

    def open(self, sweep: str, folder: Path) -> None:
        distributed = _import()
        self._sweep = sweep
        self._scheduler: Any = self._address or distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=self._num_local,
            processes=False,
            dashboard_address=LOOPBACK,
            worker_dashboard_address=LOOPBACK,
        )
        self._client = self._connect()
        if not self._client.nthreads():
            say(f"the Dask scheduler {self._address} has no workers yet: jobs wait for some")

    @property
    def _is_connected(self) -> bool:
        """False once the scheduler has been away for longer than its client waits for it."""
        return bool(self._client.status == "running")

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        if not self._is_connected:
            raise UsageError(f"the Dask scheduler {self._address} is gone")
        names = [f"{self._sweep}-{job.name}-{secrets.token_hex(4)}" for job in jobs]
        for name, job in zip(names, jobs, strict=True):
            future = self._client.submit(run_job, str(job), name, key=name, pure=False)
            self._client.publish_dataset(future, name=name)  # it outlives this client
            self._futures[name] = future
        return names

    def ended(self, names: Collection[str]) -> Collection[str]:
        if not self._is_connected:
            return names if self._client.status == "closed" else ()
        unknown = [name for name in names if name not in self._futures]
        published = self._client.list_datasets() if unknown else ()
        self._futures |= {name: self._client.get_dataset(name) for name in unknown if name in published}
        return [n for n in names if n not in self._futures or self._futures[n].status in ENDED]

    def how_it_ended(self, name: str) -> str:
        future = self._futures.get(name)
        if future is not None and future.status == "error":
            return f"Dask gave it up: {future.exception()}"
        if future is not None and future.status == "finished" and (reason := future.result()):
            return str(reason)
        return "Dask has lost it" if self._is_connected else "the Dask scheduler is gone"

    def cancel(self, names: Collection[str]) -> None:
        if self._is_connected:
            self._client.cancel([self._futures[name] for name in names if name in self._futures])
        self.forget(names)

    def forget(self, names: Collection[str]) -> None:
        for name in names:
            if name in self._futures and self._is_connected:
                self._client.unpublish_dataset(name)

    def close(self) -> None:
        self._client.close()
        if self._address is None:
            self._scheduler.close()
            while not _idle.empty():
                with _idle.get():  # closes its standard input, which ends it
                    pass

    def _connect(self) -> Any:
        try:
            return _import().Client(self._scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: of its encryption
            raise UsageError(
                f"no Dask scheduler answers at executor.scheduler={self._address} ({error}): start it "
                "with `dask scheduler`, or leave the setting out for one of this machine's own"
            ) from None

    @contextlib.contextmanager
    def _connected(self) -> Any:
        """The client of a sweep, or one for a question of a sweep that is not begun yet."""
        if self._client is not None:
            yield self._client
        else:
            self._scheduler = self._address
            with self._connect() as client:
                yield client


def _import() -> Any:
    try:
        import distributed
    except ImportError:
        raise UsageError(
            "executor=dask needs distributed: pip install 'digitlab[dask]' (a checkout: make setup)"
        ) from None
    return distributed


_idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()  # of this Dask worker


def run_job(folder: str, name: str) -> str | None:
    """In a thread of a Dask worker: have a job done; returns how its process died, if it did."""
    if not Path(folder).is_dir():
        return f"{socket.gethostname()} does not see {folder}: workers need the project's own folder"
    try:
        process = _idle.get_nowait()
    except queue.Empty:
        process = _start()
    assert process.stdin, "a pipe"
    assert process.stdout, "a pipe"
    with contextlib.suppress(OSError):
        process.stdin.write(json.dumps([folder, name]) + "\n")
        process.stdin.flush()
    if process.stdout.readline():
        _idle.put(process)
        return None
    with process:
        return str(WorkerDied.with_code(process.wait()))


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "digitlab.sweep.workers.executors.job"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the controller alone
    )
