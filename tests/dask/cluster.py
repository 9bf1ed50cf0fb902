"""Dask's scheduler and workers as processes, which may be on hosts of their own.

A host is a network namespace with a name and an address of its own, on the file system that all share.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.processes import wait_for
from tests.support.servers import free_port

DASK = str(Path(sys.executable).with_name("dask"))


class DaskCluster:
    """A scheduler and its workers, each with one thread. folder: for their files and logs."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", at: Sequence[str] = ()) -> None:
        """at: the words before a command that let it run on the scheduler's host."""
        self.folder, self.workers = folder, list[subprocess.Popen[bytes]]()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.address = f"tcp://{host}:{free_port()}"
        port = self.address.rpartition(":")[2]
        self._start(
            [*at, DASK, "scheduler", "--host", host, "--port", port, "--no-dashboard"], "scheduler"
        )

    def add_worker(self, at: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        name = f"worker-{len(self.workers)}"
        line = [*at, DASK, "worker", self.address, "--name", name, "--nthreads", "1", "--no-dashboard"]
        worker = self._start([*line, "--local-directory", str(self.folder / name)], name)
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """As a machine dies: nanny and worker at once. What they had started ends by itself."""
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    def log(self) -> str:
        return "".join(file.read_text() for file in sorted(self.folder.glob("*.log")))

    def _start(self, line: list[str], name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True)
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def dask_cluster(folder: Path, num_workers: int = 2) -> Iterator[DaskCluster]:
    folder.mkdir()
    cluster = DaskCluster(folder)
    try:
        for _ in range(num_workers):
            cluster.add_worker()
        wait_for(lambda: cluster.log().count("Registered to") == num_workers, cluster.log(), 120)
        yield cluster
    finally:
        cluster.end()


class TwoHosts:
    """`near` (10.77.0.1) and `far` (10.77.0.2), joined by a link that can be cut. Needs root."""

    near, far = "10.77.0.1", "10.77.0.2"

    def __init__(self) -> None:
        self._names = [f"digitlab-{end}-{os.getpid()}" for end in ("near", "far")]

    @staticmethod
    def missing() -> str | None:
        if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
            return "two hosts need root and iproute2"
        return None

    def at(self, address: str) -> list[str]:
        """The words before a command that runs on this host."""
        name = self._names[address == self.far]
        host = "far" if address == self.far else "near"
        named = ["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]
        return ["ip", "netns", "exec", name, *named]

    def __enter__(self) -> "TwoHosts":
        near, far = self._names
        for name in self._names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", near, "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", far)
        for name, address in zip(self._names, (self.near, self.far), strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "link0")
            _ip("-n", name, "link", "set", "link0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def cut(self) -> None:
        _ip("-n", self._names[1], "link", "set", "link0", "down")

    def mend(self) -> None:
        _ip("-n", self._names[1], "link", "set", "link0", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
