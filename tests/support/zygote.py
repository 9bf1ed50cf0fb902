"""Commands in processes of their own that need not import torch first: 3 s of processor time each.

One process has imported the libraries that every command needs, nothing of digitlab, and runs no code
of them. For each command it forks a child, which then is what `python -m MODULE` would be: a child of
the tests with its own arguments, environment, folder, group and standard streams. Only what a variable
decides at the import of a library, and the start of Python itself, takes a real start.
"""

import contextlib
import ctypes
import functools
import importlib
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "hydra", "pydantic", "pyarrow.parquet", "pandas", "rich.progress", "psutil")
CHECKOUT = Path(__file__).resolve().parents[2]
PR_SET_CHILD_SUBREAPER = 36


class Forked(subprocess.Popen[str]):
    """`python -m args[0] args[1:]`, forked."""

    def _execute_child(self, args: list[str], *rest: Any) -> None:  # type: ignore[override]
        _, _, _, _, cwd, env, *_ = rest
        pipes = rest[9:15]
        stdin, stdout, stderr = pipes[0], pipes[3], pipes[5]
        request = pickle.dumps((args, os.fspath(cwd or Path.cwd()), env, rest[-1] == 0))
        streams = [own if given == -1 else given for own, given in enumerate((stdin, stdout, stderr))]
        connection, _ = _zygote()
        with _adopting_orphans():
            socket.send_fds(connection, [request], streams)
            self.pid = int(connection.recv(100))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


@functools.cache
def _zygote() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The process that forks and the connection to it, with which it ends."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        line = [sys.executable, "-m", "tests.support.zygote", str(theirs.fileno())]
        outside = {k: v for k, v in os.environ.items() if k != "DIGITLAB_HOME"}  # it is of no home
        files = [theirs.fileno()]
        return ours, subprocess.Popen(
            line, cwd=CHECKOUT, env=outside, pass_fds=files, start_new_session=True
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
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            os.closerange(3, 1000)
            connection.detach()
            return pickle.loads(request)  # type: ignore[no-any-return]
        os.waitpid(between, 0)  # now the child is a child of the tests
        connection.send(os.read(reader, 100))
        for file in (reader, writer, *streams):
            os.close(file)


def main() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    work = _serve(socket.socket(fileno=int(sys.argv[1])))
    if work is None:
        return
    line, folder, environment, has_group = work
    if has_group:
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0], sys.argv = folder, line
    runpy.run_module(line[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
