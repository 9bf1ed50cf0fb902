"""Commands in processes of their own that need not import torch and mlflow first: 5 s each.

One process has imported the libraries that every command needs, and runs no code of them. For each
command it forks a child, which then is what `python -m MODULE` would be: a child of the tests with its
own arguments, environment, folder, group and standard streams. So are its store process and the process
that its workers are forked from. Only the start of Python itself, and what a variable decides when a
library is imported, takes a real start.
"""

import contextlib
import ctypes
import fcntl
import functools
import importlib
import itertools
import multiprocessing.util
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from digitlab.tracking.connection.client import import_mlflow

LIBRARIES = ("torch", "hydra", "pydantic", "pyarrow.parquet", "rich.progress", "psutil")
STORE = "mlflow.store.tracking.sqlalchemy_store"
CHECKOUT = Path(__file__).resolve().parents[2]
PR_SET_CHILD_SUBREAPER = 36
ROOM = "x" * 5000  # for what a child has in its environment: see `_show`
LAST_FILE = 1 << 16
AT_THE_START = ("LD_PRELOAD", "FAULT_PLAN")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Forked(subprocess.Popen[str]):
    """`python -m args[0] args[1:]`, forked."""

    def _execute_child(self, args: list[str], *rest: Any) -> None:  # type: ignore[override]
        _, _, _, _, cwd, env, *_ = rest
        pipes = rest[9:15]
        stdin, stdout, stderr = pipes[0], pipes[3], pipes[5]
        request = pickle.dumps((args, os.fspath(cwd or Path.cwd()), env, rest[-1] == 0))
        streams = [own if given == -1 else given for own, given in enumerate((stdin, stdout, stderr))]
        connection, _ = _zygote(*((name, env[name]) for name in AT_THE_START if name in env))
        with _adopting_orphans():
            socket.send_fds(connection, [request], streams)
            self.pid = int(connection.recv(100))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


@functools.cache
def _zygote(*started_with: tuple[str, str]) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The process that forks and the connection to it, with which it ends.

    started_with: variables that decide at its start what its children are.
    """
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        line = [sys.executable, "-m", "tests.support.zygote", str(theirs.fileno())]
        outside = {k: v for k, v in os.environ.items() if k != "DIGITLAB_HOME"}  # it is of no home
        return ours, subprocess.Popen(
            line,
            cwd=CHECKOUT,
            env={"ROOM": ROOM, **outside, **dict(started_with)},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    """A process whose parent ends becomes our child, so that we can wait for it."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _serve(connection: socket.socket) -> tuple[list[str], str, dict[str, str], bool] | None:
    """Returns in each child what it is to be, and None when there is nobody to fork for."""
    while True:
        request, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not request:
            return None
        reader, writer = os.pipe()
        if (between := os.fork()) == 0:
            if child := os.fork():
                os.write(writer, str(child).encode())
                os._exit(0)
            _take_files(streams, range(3))
            connection.detach()
            return pickle.loads(request)  # type: ignore[no-any-return]
        os.waitpid(between, 0)  # now the child is a child of the tests
        connection.send(os.read(reader, 100))
        for file in (reader, writer, *streams):
            os.close(file)


def _take_files(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Have these files under these numbers, and no others but the standard ones."""
    above = max(*numbers, *files) + 1
    copies = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files]
    for copy, number in zip(copies, numbers, strict=True):
        os.dup2(copy, number)
    for kept, next_kept in itertools.pairwise([*sorted({2, *numbers}), LAST_FILE]):
        os.closerange(kept + 1, next_kept)


def _take_environment(environment: dict[str, str]) -> None:
    """Also as /proc shows it to others, who look for the processes of a home."""
    os.environ.clear()
    os.environ.update(environment)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # fields 50 and 51 of proc(5)
    shown = f"DIGITLAB_HOME={environment.get('DIGITLAB_HOME', '')}\0".encode()
    ctypes.memmove(start, shown.ljust(end - start, b"\0"), end - start)


def _fork_a_fork_server() -> Callable[..., int]:
    """What starts multiprocessing's fork server: this copy of us waits until it is asked to be that."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    real = multiprocessing.util.spawnv_passfds
    if (pid := os.fork()) == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        ours.close()
        request, files, _, _ = socket.recv_fds(theirs, 1 << 20, 10)
        if not request:
            os._exit(0)
        program, numbers, environment, mask = pickle.loads(request)
        _take_files(files, numbers)
        theirs.detach()
        _take_environment(environment)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        exec(program, {"__name__": "__main__"})
        os._exit(0)
    theirs.close()

    def start(path: bytes, arguments: Sequence[str], files: Sequence[int]) -> int:
        if "forkserver" not in arguments[-1] or ours.fileno() == -1:
            return real(path, arguments, files)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        request = pickle.dumps((arguments[-1], list(files), dict(os.environ), mask))
        with ours:
            socket.send_fds(ours, [request], list(files))
        return pid

    return start


def main() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    import_mlflow()
    importlib.import_module(STORE)
    from digitlab.tracking.connection.store_process import STORES

    work = _serve(socket.socket(fileno=int(sys.argv[1])))
    if work is None:
        return
    line, folder, environment, has_group = work
    if has_group:
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    _take_environment(environment)
    sys.path[0], sys.argv = folder, line
    if "sweep" in line:
        multiprocessing.util.spawnv_passfds = _fork_a_fork_server()
    if "ui" not in line:
        STORES.fork()
    runpy.run_module(line[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
