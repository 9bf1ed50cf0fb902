"""One worker process: how it is started and spoken to, and its life from the inside.

Knows neither the queue of tasks nor what they do.
"""

import atexit
import contextlib
import errno
import gc
import io
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from multiprocessing import forkserver, popen_forkserver, reduction, resource_tracker, spawn, util
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess, set_spawning_popen
from multiprocessing.process import BaseProcess
from typing import Any

from digitlab.errors import Interrupted
from digitlab.runs.interrupts import SIGNALS, Interrupts

PRELOAD = ["digitlab.sweep.workers.preloaded"]


class _Popen(popen_forkserver.Popen):
    """Starts a process without what multiprocessing sends along to import the caller's script again.

    A worker needs nothing of it, and it may train wherever it is imported.
    """

    def _launch(self, process_obj: BaseProcess) -> None:
        prepare = spawn.get_preparation_data(process_obj.name)
        for name in ("init_main_from_name", "init_main_from_path"):
            prepare.pop(name, None)
        content = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(prepare, content)
            reduction.dump(process_obj, content)
        finally:
            set_spawning_popen(None)
        self.sentinel, pipe = forkserver.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        parent = os.dup(pipe)  # by which the process knows that this one lives
        self.finalizer = util.Finalize(self, util.close_fds, (parent, self.sentinel))  # type: ignore[attr-defined]
        with open(pipe, "wb", closefd=True) as file:  # noqa: PTH123
            file.write(content.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


class _Process(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> popen_forkserver.Popen:  # noqa: N802
        return _Popen(process_obj)


class Worker:
    """The controller's side of a process. It takes one task at a time, over `connection`.

    unbegun: the task that it was given, until it says that it has begun.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Raises OSError if no process can be started. environment: besides this process' own."""
        warm_up()
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        stop_reader, self._stop = context.Pipe(duplex=False)  # read whatever else is said
        arguments = (theirs, stop_reader, {**os.environ, **environment})
        self.process = _Process(target=_work, args=arguments, daemon=True)
        try:
            self.process.start()
        except (OSError, EOFError) as error:  # EOFError: it is the fork server that could not
            raise OSError(errno.EAGAIN, f"no worker process can be started ({error})") from error
        theirs.close()
        stop_reader.close()
        self.future: Future[Any] | None = None
        self.unbegun: Any = None

    def ask_to_stop(self, number: int) -> None:
        with contextlib.suppress(OSError):  # it is dead
            self._stop.send(number)

    def dismiss(self) -> None:
        """There are no more tasks."""
        with contextlib.suppress(OSError):
            self.connection.send(None)

    def end(self) -> int | None:
        """Wait for the process to end, and kill it after 5 s; returns its exit code."""
        self.process.join(5)
        self.process.kill()
        self.process.join()
        self.connection.close()
        self._stop.close()
        return self.process.exitcode


def warm_up() -> None:
    """Start importing what workers need, in the background, unless that has begun already.

    What stops a sweep mostly reaches the whole process group, and must not end the fork server, without
    which no worker can be waited for: it is born with these signals blocked, and so are workers, which
    open them for themselves.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # starting that one unblocks them
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def warm_up_early(overrides: Sequence[str]) -> None:
    """Begin beside the composing of a sweep; the fork server ends with this process, whatever comes.

    Nothing begins where the line names another executor. Where conf/ names one, it is in vain.
    """
    chosen = [text.partition("=")[2] for text in overrides if text.startswith("executor=")]
    if not chosen or chosen[-1] == "processes":
        warm_up()
        atexit.register(_cool_down, os.getpid())


def _cool_down(owner: int) -> None:
    """End the fork server, whatever it imports. owner: the process that started it; no copy of that."""
    server: Any = forkserver._forkserver
    if os.getpid() == owner and server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


def _work(connection: Connection, stop: Connection, environment: dict[str, str]) -> None:
    """A worker's life: tasks until there are no more, or no controller to do them for."""
    gc.enable()
    os.setsid()  # what reaches the controller's group is for the controller alone
    os.environ.clear()
    os.environ.update(environment)  # as they are now, not as they were when the first worker started
    interrupts = Interrupts()
    threading.Thread(target=_heed_controller, args=(stop, interrupts), daemon=True).start()

    def tell(content: Any) -> Any:
        try:
            connection.send(("tell", content))
            return connection.recv()
        except (EOFError, OSError):  # the controller is gone: no failure of the task, to be recorded
            os._exit(1)

    with contextlib.suppress(EOFError, OSError), interrupts, interrupts.deferred():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        while (task := connection.recv()) is not None:
            connection.send(("begun", None))
            function, args = task
            try:
                reply = "result", function(*args, tell=tell, interrupts=interrupts)
            except (Exception, Interrupted):
                reply = "error", traceback.format_exc()
            if interrupts.signal_number is not None:
                tell(signal.Signals(interrupts.signal_number))  # it may have reached this process alone
            connection.send(reply)


def _heed_controller(stop: Connection, interrupts: Interrupts) -> None:
    """Stop at the next step when it says so; end at once, in the middle of a step, when it is gone."""
    with contextlib.suppress(EOFError, OSError):
        interrupts.request(stop.recv())
        stop.recv()
    os._exit(1)
