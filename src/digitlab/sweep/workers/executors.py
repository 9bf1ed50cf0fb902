"""Where trials are trained, behind concurrent.futures' interface.

A standard process pool breaks as a whole when one worker dies, and takes every other task with it.
Here a dead worker costs its own task only, and none outlives the process that started it.
"""

import collections
import contextlib
import errno
import gc
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection, wait
from typing import Any

from digitlab.errors import Interrupted, machine_refusal
from digitlab.runs.interrupts import SIGNALS, Interrupts
from digitlab.tracking.connection.store_process import STORES

Tell = Callable[[Any], Any]

MAX_LOST = 100  # tasks given to workers that died before they began; more mean that none can begin
PRELOAD = ["digitlab.sweep.workers.preloaded"]


class WorkerDied(Exception):  # noqa: N818  (what happened, not a mistake)
    """A worker's process ended in the middle of a task."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        if exit_code is not None and exit_code < 0:
            name = signal.Signals(-exit_code).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            super().__init__(f"its process was ended by {name}{hint}")
        else:
            super().__init__(f"its process ended with code {exit_code}")


class TaskFailed(Exception):  # noqa: N818
    """A task raised in another process; the message is its traceback."""


class InProcess(Executor):
    """Runs each task when it is submitted, in this process.

    `tell` is what a task calls to say something while it runs, and gets an answer.
    """

    num_workers = 1

    def __init__(self, tell: Tell, interrupts: Interrupts) -> None:
        self._tell, self._interrupts = tell, interrupts

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*args, tell=self._tell, interrupts=self._interrupts, **kwargs))
        except (Exception, Interrupted) as error:
            future.set_exception(error)
        return future

    def interrupt(self, number: int) -> None:
        """Nothing runs outside `submit`."""


class _Worker:
    """One process and what it is doing. A word on `stop` asks it to stop, whatever else is said."""

    def __init__(self, process: Any, connection: Connection, stop: Connection) -> None:
        self.process, self.connection, self.stop = process, connection, stop
        self.future: Future[Any] | None = None
        self.unbegun: Any = None  # the task that it was given, until it says that it has begun


class Processes(Executor):
    """Worker processes that import once and take many tasks, each in a session of its own.

    A task is a module-level function that is called with `tell` and `interrupts` besides its own
    arguments. A worker that a signal has stopped tells its number. `environment(i)` gives worker i its
    environment variables. Thread-safe.
    """

    def __init__(
        self, num_workers: int, tell: Tell, environment: Callable[[int], dict[str, str]] = lambda _: {}
    ) -> None:
        self.num_workers = num_workers
        self._tell, self._environment = tell, environment
        self._queue: collections.deque[tuple[Future[Any], Any]] = collections.deque()
        self._workers: dict[int, _Worker] = {}
        self._lock = threading.Lock()
        self._is_closing = False
        self._stopped_by: int | None = None  # a signal
        self._num_lost = 0
        self._wake_reader, self._wake_writer = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._dispatch, daemon=True, name="sweep executor")
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._is_closing:
            raise RuntimeError("the executor is shut down")
        future: Future[Any] = Future()
        self._queue.append((future, (function, args, kwargs)))
        self._wake()
        return future

    def interrupt(self, number: int) -> None:
        """Ask every running task to stop at its next step, as by this signal. No other is begun."""
        with self._lock:
            self._stopped_by = number
            for worker in self._workers.values():
                _ask_to_stop(worker, number)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            while self._queue:
                self._queue.popleft()[0].cancel()
        self._is_closing = True
        self._wake()
        if wait:
            self._thread.join()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(None)

    def _dispatch(self) -> None:
        """The only thread that talks to workers; if it fails, so does every task, and nobody waits."""
        try:
            self._serve()
        except Exception as error:
            waiting = [future for future, _ in self._queue if future.set_running_or_notify_cancel()]
            for future in [*waiting, *(w.future for w in self._workers.values() if w.future)]:
                future.set_exception(error)
            self._queue.clear()
            if machine_refusal(error) is None:  # that is told once, by whoever waits for a result
                raise

    def _serve(self) -> None:
        """Hand out tasks, collect results, notice deaths."""
        while not (self._is_closing and not self._queue and not self._busy()):
            self._hand_out()
            busy = {w.connection: i for i, w in self._workers.items()}
            for ready in wait([self._wake_reader, *busy]):
                if ready is self._wake_reader:
                    self._wake_reader.recv()
                elif ready in busy:
                    self._receive(busy[ready])
        for worker in self._workers.values():
            with contextlib.suppress(OSError):
                worker.connection.send(None)
        for worker in self._workers.values():
            worker.process.join(5)
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
            worker.stop.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _busy(self) -> bool:
        return any(worker.future for worker in self._workers.values())

    def _hand_out(self) -> None:
        for index in range(self.num_workers):
            if not self._queue or self._stopped_by:
                return
            worker = self._workers.get(index)
            if worker is None or worker.future is None:
                future, task = self._queue.popleft()
                if future.set_running_or_notify_cancel():
                    try:
                        self._give(index, future, task)
                    except Exception as error:
                        future.set_exception(error)
                        raise

    def _give(self, index: int, future: Future[Any], task: Any) -> None:
        while True:
            worker = self._workers.get(index) or self._start(index)
            try:
                worker.connection.send(task)
            except OSError:  # it died while it was idle: that costs nobody's task
                self._bury(index)
            else:
                worker.future, worker.unbegun = future, task
                return

    def _start(self, index: int) -> _Worker:
        warm_up()
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        told_to_stop, stop = context.Pipe(duplex=False)
        environment = {**os.environ, **self._environment(index)}
        process = context.Process(target=_work, args=(theirs, told_to_stop, environment), daemon=True)
        try:
            process.start()
        except (OSError, EOFError) as error:  # EOFError: it is the fork server that could not
            raise OSError(errno.EAGAIN, f"no worker process can be started ({error})") from error
        theirs.close()
        told_to_stop.close()
        worker = _Worker(process, ours, stop)
        with self._lock:
            self._workers[index] = worker
            if self._stopped_by:
                _ask_to_stop(worker, self._stopped_by)
        return worker

    def _receive(self, index: int) -> None:
        worker = self._workers[index]
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            code = self._bury(index)
            if worker.future and worker.unbegun and self._num_lost < MAX_LOST:
                self._num_lost += 1  # killed between two tasks: that costs neither of them
                self._give(index, worker.future, worker.unbegun)
            elif worker.future:
                worker.future.set_exception(WorkerDied(code))
            return
        if kind == "begun":
            worker.unbegun = None
            return
        if kind == "tell":
            with contextlib.suppress(OSError):
                worker.connection.send(self._tell(content))
            return
        future, worker.future = worker.future, None
        assert future is not None, "a worker answers what it was asked"
        if kind == "result":
            future.set_result(content)
        else:
            future.set_exception(TaskFailed(content))

    def _bury(self, index: int) -> int | None:
        with self._lock:
            worker = self._workers.pop(index)
        worker.process.join(5)
        worker.connection.close()
        worker.stop.close()
        code: int | None = worker.process.exitcode
        return code


def _ask_to_stop(worker: _Worker, number: int) -> None:
    with contextlib.suppress(OSError):  # it is dead
        worker.stop.send(number)


def warm_up() -> None:
    """Start importing what workers need, in the background, if nobody has yet.

    What stops a sweep mostly reaches the whole process group, and must not end that process, without
    which nobody knows how workers are: it is born with these signals blocked, and so are workers, which
    open them for themselves.
    """
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # starting that one unblocks them
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, told_to_stop: Connection, environment: dict[str, str]) -> None:
    """A worker's life: tasks until there are no more, or nobody to do them for."""
    gc.enable()
    os.setsid()  # what reaches the controller's group is for the controller alone
    os.environ.clear()
    os.environ.update(environment)  # as they are now, not as they were when the first worker started
    STORES.fork()  # while there is no thread, and what it imports is here
    interrupts = Interrupts()
    threading.Thread(target=_heed_controller, args=(told_to_stop, interrupts), daemon=True).start()

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
            function, args, kwargs = task
            try:
                reply = "result", function(*args, tell=tell, interrupts=interrupts, **kwargs)
            except (Exception, Interrupted):
                reply = "error", traceback.format_exc()
            if interrupts.signal_number is not None:
                tell(signal.Signals(interrupts.signal_number))  # it may have reached this process alone
            connection.send(reply)


def _heed_controller(told_to_stop: Connection, interrupts: Interrupts) -> None:
    """Stop at the next step when it says so; end at once, in the middle of a step, when it is gone."""
    with contextlib.suppress(EOFError, OSError):
        interrupts.request(told_to_stop.recv())
        told_to_stop.recv()
    os._exit(1)
