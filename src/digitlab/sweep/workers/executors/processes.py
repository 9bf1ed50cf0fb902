"""Worker processes of this machine as an executor, of which any may die.

A standard process pool breaks as a whole when one worker dies, and takes every other task with it.
Here a dead worker costs its own task only, and none outlives the process that started it.
"""

import collections
import contextlib
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from digitlab.errors import machine_refusal
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.settings import ProcessesSettings
from digitlab.sweep.workers.cores import usable_cores
from digitlab.sweep.workers.executors.executor import Needs, TaskFailed, Tell, UnderWay, WorkerDied
from digitlab.sweep.workers.executors.worker import Worker, warm_up
from digitlab.sweep.workers.gpus import gpu_environment, visible_gpus

MAX_LOST = 100  # tasks given to workers that died before they began; more mean that none can begin


class Processes:
    """Processes that import once and take many tasks, each in a session of its own.

    A worker that a signal has stopped tells its number. Thread-safe.
    """

    is_remote = False
    is_this_process = False

    def __init__(self, settings: ProcessesSettings, needs: Needs) -> None:
        gpus = visible_gpus() if needs.device == "cuda" else []
        most = len(gpus) * settings.per_gpu or max(usable_cores() // needs.threads, 1)
        self.num_workers = settings.workers or most
        self._environment = gpu_environment(gpus, settings.per_gpu) if gpus else lambda index: {}
        self._queue: collections.deque[tuple[Future[Any], Any]] = collections.deque()
        self._workers: dict[int, Worker] = {}
        self._lock = threading.Lock()
        self._is_closing = False
        self._stopped_by: int | None = None  # a signal
        self._num_lost = 0

    @property
    def num_ahead(self) -> int:
        return 2 * self.num_workers

    def attach(self, folder: Path) -> Sequence[UnderWay]:
        """Nothing outlives its controller."""
        return ()

    def prepare(self) -> None:
        warm_up()

    def start(self, tell: Tell, interrupts: Interrupts) -> None:
        self._tell = tell
        self._wake_reader, self._wake_writer = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._dispatch, daemon=True, name="sweep executor")
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        if self._is_closing:
            raise RuntimeError("the executor is shut down")
        future: Future[Any] = Future()
        self._queue.append((future, (function, args)))
        self._wake()
        return future

    def interrupt(self, number: int) -> None:
        with self._lock:
            self._stopped_by = number
            for worker in self._workers.values():
                worker.ask_to_stop(number)

    def shutdown(self) -> None:
        self._is_closing = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(None)

    def _dispatch(self) -> None:
        """The only thread that talks to workers. If it fails, every task does: none is waited for."""
        try:
            self._serve()
        except Exception as error:
            waiting = [future for future, _ in self._queue if future.set_running_or_notify_cancel()]
            for future in [*waiting, *(w.future for w in self._workers.values() if w.future)]:
                future.set_exception(error)
            self._queue.clear()
            if machine_refusal(error) is None:  # a refusal is reported through the futures
                raise

    def _serve(self) -> None:
        """Hand out tasks, collect results, notice deaths."""
        while not (self._is_closing and not self._is_busy()):
            self._hand_out()
            busy = {worker.connection: i for i, worker in self._workers.items()}
            for ready in wait([self._wake_reader, *busy]):
                if ready is self._wake_reader:
                    self._wake_reader.recv()
                elif ready in busy:
                    self._receive(busy[ready])
        while self._queue:
            self._queue.popleft()[0].cancel()
        for worker in self._workers.values():
            worker.dismiss()
        for worker in self._workers.values():
            worker.end()
        self._wake_reader.close()
        self._wake_writer.close()

    def _is_busy(self) -> bool:
        return any(worker.future for worker in self._workers.values())

    def _hand_out(self) -> None:
        for index in range(self.num_workers):
            if not self._queue or self._stopped_by or self._is_closing:
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
            worker = self._workers.get(index) or self._start_worker(index)
            try:
                worker.connection.send(task)
            except OSError:  # it died while it was idle: that costs no task
                self._bury(index)
            else:
                worker.future, worker.unbegun = future, task
                return

    def _start_worker(self, index: int) -> Worker:
        worker = Worker(self._environment(index))
        with self._lock:
            self._workers[index] = worker
            if self._stopped_by:
                worker.ask_to_stop(self._stopped_by)
        return worker

    def _receive(self, index: int) -> None:
        worker = self._workers[index]
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._settle_death(worker, index)
            return
        if kind == "begun":
            worker.unbegun = None
        elif kind == "tell":
            with contextlib.suppress(OSError):
                worker.connection.send(self._tell(content))
        else:
            future, worker.future = worker.future, None
            assert future is not None, "a worker answers what it was asked"
            if kind == "result":
                future.set_result(content)
            else:
                future.set_exception(TaskFailed(content))

    def _settle_death(self, worker: Worker, index: int) -> None:
        code = self._bury(index)
        if worker.future and worker.unbegun and self._num_lost < MAX_LOST:
            self._num_lost += 1  # killed between two tasks: that costs neither of them
            self._give(index, worker.future, worker.unbegun)
        elif worker.future:
            worker.future.set_exception(WorkerDied.with_code(code))

    def _bury(self, index: int) -> int | None:
        with self._lock:
            worker = self._workers.pop(index)
        return worker.end()
