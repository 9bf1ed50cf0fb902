"""A process that talks to tracking stores for this one, which never waits longer than it chooses to.

A store may hang, answer for ever, or crash its client: then that process is killed. A thread would not
do: importing mlflow in one stalls training. It ends with the process that it works for.
"""

import atexit
import contextlib
import dataclasses
import gc
import itertools
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from digitlab.errors import DigitlabError, TrackingError
from digitlab.text.addresses import redacted
from digitlab.tracking.connection.client import import_mlflow, is_mlflow_imported
from digitlab.tracking.connection.location import undeliverable

IMPORT_SECONDS = 60.0  # of which no store is guilty
MOST_TIMES = 2  # its limit a request may compute: an endless answer is read for ever
SHORTEST_WAIT = 0.02
TURN_SECONDS = 0.1  # that a thread listens before another one may
LEFT_ALONE_SECONDS = 30.0  # a store that has not answered
ANSWER_BYTES = 1 << 30  # that a store's answers may take of memory
FIRST_FILE, LAST_FILE = 3, 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class _Times:
    """Seconds of a process: of computing, and of neither that nor waiting to do so."""

    computing: float
    waiting: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Where the system does not tell, all time is waiting."""
        clock, computing, queueing = time.monotonic(), 0, 0
        with contextlib.suppress(OSError, ValueError):
            statistics = Path(f"/proc/{pid}/schedstat").read_text().split()
            computing, queueing = int(statistics[0]), int(statistics[1])
        return cls(computing / 1e9, clock - (computing + queueing) / 1e9)

    @property
    def running(self) -> float:
        """All but the time without a processor."""
        return self.computing + self.waiting


class StoreProcess:
    """Started when it is first asked, one request after another. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._pid = 0
        self._numbers = itertools.count(1)
        self._uris: dict[int, str] = {}  # of requests without an answer
        self._answers: dict[int, tuple[bool, Any]] = {}  # whether it is a value, and that or the error
        self._importing_since: _Times | None = None
        self._left_alone_until: dict[str, float] = {}

    def ask(self, uri: str, function: Callable[..., Any], *args: Any) -> int:
        """Let it call a module-level function that talks to that store; returns the request's number.

        Raises:
            TrackingError: no process can be started, or the store has not answered just now.
        """
        if time.monotonic() < self._left_alone_until.get(uri, 0.0):
            raise TrackingError(f"{uri} did not answer just now")
        with self._lock:
            number = next(self._numbers)
            try:
                if self._connection is None:
                    self._start()
                assert self._connection is not None, "started"
                self._connection.send((number, uri, function, args, dict(os.environ)))
            except OSError as error:
                self.stop()
                raise TrackingError(f"the process that delivers cannot be had: {error}") from None
            except KeyboardInterrupt:  # a request may be half sent
                self.stop()
                raise
            self._uris[number] = uri
        return number

    def is_answered(self, number: int) -> bool:
        """Also True if the process has died, which is an answer, too."""
        with self._lock:
            self._hear(0.0)
            return number in self._answers

    @property
    def is_importing(self) -> bool:
        """Whether requests wait for it to import MLflow."""
        return self._importing_since is not None

    def answer(self, number: int, *, seconds: float) -> Any:
        """What the function has returned, if it does so in time.

        What counts is the time that the process waits for its store: not its imports, not the time
        without a processor on a busy machine, and what it computes only beyond twice the limit.

        Raises:
            TrackingError: not in time: its process was killed, and the store is left alone for 30 s.
            DigitlabError: that the function has raised.
        """
        begun: _Times | None = None
        while True:
            with self._lock:
                if number in self._answers:
                    break
                now = _Times.of(self._pid)
                if (since := self._importing_since) is not None:
                    left, begun = IMPORT_SECONDS - (now.running - since.running), None
                else:
                    begun = begun or now
                    left = seconds - (now.waiting - begun.waiting)
                    left = min(left, MOST_TIMES * seconds - (now.computing - begun.computing))
                if left <= 0:
                    uri = self._uris[number]
                    self.stop()
                    self._answers.pop(number)
                    self._left_alone_until[uri] = time.monotonic() + LEFT_ALONE_SECONDS
                    raise TrackingError(f"{uri} does not answer (nothing within {seconds:.2g} s)")
                self._hear(min(max(left, SHORTEST_WAIT), TURN_SECONDS))
        is_value, content = self._answers.pop(number)
        if not is_value:
            raise content
        return content

    def fork(self) -> None:
        """Start it as a copy of this one, which has imported mlflow, and runs no thread or store."""
        ours, theirs = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _forget_files(theirs.fileno())
                serve(theirs)
            finally:
                os._exit(1)
        theirs.close()
        self._connection = ours

    def stop(self) -> None:
        """Kill it, whatever it does; requests without an answer get that as one."""
        with self._lock:
            if self._connection is None:
                return
            self._connection.close()
            self._connection, self._importing_since = None, None
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            for number, uri in self._uris.items():
                ended = TrackingError(f"{uri}: the process that delivers was ended")
                self._answers[number] = False, ended
            self._uris.clear()

    def _start(self) -> None:
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "digitlab.tracking.connection.store_process",
                    str(theirs.fileno()),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("DIGITLAB_VERBOSE") else subprocess.DEVNULL,
                process_group=0,  # a signal to our group must not keep the end from the store
            )
        self._pid, self._connection = process.pid, ours
        process.returncode = 0  # `stop` waits for it, and nobody else
        self._importing_since = _Times.of(self._pid)

    def _hear(self, seconds: float) -> None:
        """Receive its answers; wait this long for the first."""
        try:
            while self._connection is not None and self._connection.poll(seconds):
                seconds, (number, content) = 0.0, self._connection.recv()
                if number is None:
                    is_importing = content == "importing"
                    self._importing_since = _Times.of(self._pid) if is_importing else None
                else:
                    self._answers[number] = content
                    self._uris.pop(number)
        except (EOFError, OSError):
            self.stop()
        except KeyboardInterrupt:  # in a user's process; an answer may be half read
            self.stop()
            raise


def serve(connection: Connection) -> None:
    """Answer until the other end is gone, which ends this process whatever it is doing."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    connection.send((None, "ready"))
    _limit_memory()
    while True:
        number, uri, function, args, environment = requests.get()
        os.environ.clear()
        os.environ.update(environment)
        try:
            content = True, _call(connection, uri, function, args)
        except DigitlabError as error:
            content = False, error
        except Exception as error:
            text = redacted(f"{type(error).__name__}: {error}".splitlines()[0][:300])
            content = False, TrackingError(f"tracking store {uri}: {text}")
        connection.send((number, content))


def _call(connection: Connection, uri: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    if uri and (reason := undeliverable(uri)):  # within 3 s, where MLflow would try for half a minute
        raise TrackingError(reason)
    if not is_mlflow_imported():
        connection.send((None, "importing"))
        import_mlflow()
        _limit_memory()
        connection.send((None, "imported"))
    return function(*args)


def _receive(connection: Connection, requests: "queue.SimpleQueue[Any]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            requests.put(connection.recv())
    os._exit(0)


def _limit_memory() -> None:
    """What is there now and room for any decent answer: an endless one ends as a MemoryError."""
    if not sys.platform.startswith("linux"):
        return  # others do not count it, or do not heed the limit
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + ANSWER_BYTES, hard))


def _forget_files(kept: int) -> None:
    """All but the one and the standard ones, which are silenced: others wait for their end."""
    os.closerange(FIRST_FILE, kept)
    os.closerange(kept + 1, LAST_FILE)
    silence = os.open(os.devnull, os.O_RDWR)
    for standard in range(FIRST_FILE):
        os.dup2(silence, standard)


STORES = StoreProcess()
atexit.register(STORES.stop)

if __name__ == "__main__":
    gc.set_threshold(100_000, 50, 100)  # what is imported stays, as in the command line
    serve(Connection(int(sys.argv[1])))
