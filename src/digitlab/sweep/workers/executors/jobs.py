"""Jobs of a scheduler as an executor: they outlive the controller, which attaches to them again.

What a job does, and how it speaks, is job.py's; how a scheduler is spoken to, slurm.py's and dask.py's.
"""

import contextlib
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.workers.executors.cluster import Cluster
from digitlab.sweep.workers.executors.executor import Tell, UnderWay, WorkerDied
from digitlab.sweep.workers.executors.job import Function, JobFolder
from digitlab.sweep.workers.executors.submitted_job import JOBS, SubmittedJob, left_by_another

POLL_SECONDS = 0.2
QUIET_SECONDS = 0.2  # tasks that are submitted one upon the other go out together
MOST_JOBS = 1000  # at a time, as many as an array of SLURM has, unless it was set up otherwise
GRACE_SECONDS = 5.0  # a job that has ended may be queued again, and what it said may be on its way


class Jobs:
    """An executor over a scheduler. At most `num_workers` jobs, of several tasks each, at a time."""

    is_remote = True
    is_this_process = False

    def __init__(self, cluster: Cluster, *, name: str, tasks_per_job: int) -> None:
        self._cluster, self._name, self._tasks_per_job = cluster, name, tasks_per_job
        self._queue: deque[tuple[Future[Any], Function, tuple[Any, ...]]] = deque()
        self._submitted_at = self._asked_at = 0.0
        self._jobs: list[SubmittedJob] = []
        self._wake = threading.Event()
        self._is_closing = False
        self._stopped_by: int | None = None  # a signal

    @property
    def num_workers(self) -> int:
        return self._cluster.num_workers

    @property
    def num_ahead(self) -> int:
        return MOST_JOBS * self._tasks_per_job

    def attach(self, folder: Path) -> Sequence[UnderWay]:
        self._folder = folder / JOBS / self._name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._cluster.open(folder.name, self._folder.parent)
        left = [job for file in sorted(self._folder.iterdir()) if (job := left_by_another(file))]
        ended = self._cluster.ended([job.name for job in left])
        stopped = [job for job in left if job.folder.asked_to_stop()]
        self._discard(stopped)
        self._jobs = [job for job in left if job not in stopped]
        under_way = []
        for job in self._jobs:
            lines = [line for line in job.folder.said.lines() if line]
            results = {line["task"] for line in lines if line["kind"] in ("result", "error")}
            for number in {line["task"] for line in lines}:
                job.futures[number].set_running_or_notify_cancel()
            for number, (_, args) in enumerate(job.folder.tasks()):
                if job.name not in ended or number in results:
                    under_way.append(UnderWay(job.futures[number], args))
        return under_way

    def _discard(self, jobs: Sequence[SubmittedJob]) -> None:
        """Cancel jobs that an earlier controller asked to stop; their trials go on in new jobs."""
        self._cluster.cancel([job.name for job in jobs])
        for job in jobs:
            shutil.rmtree(job.folder.folder, ignore_errors=True)

    def prepare(self) -> None:
        """What takes long, a job does by itself."""

    def start(self, tell: Tell, interrupts: Interrupts) -> None:
        self._tell = tell
        self._thread = threading.Thread(target=self._dispatch, daemon=True, name="sweep executor")
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._queue.append((future, function, args))
        self._submitted_at = time.monotonic()
        self._wake.set()
        return future

    def interrupt(self, number: int) -> None:
        self._stopped_by = number
        self._wake.set()

    def shutdown(self) -> None:
        self._is_closing = True
        self._wake.set()
        self._thread.join()
        while self._queue:
            self._queue.popleft()[0].cancel()
        settled = [job for job in self._jobs if job.is_settled]
        self._cluster.forget([job.name for job in settled])
        self._cluster.close()
        for job in settled:
            shutil.rmtree(job.folder.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: what has not ended, others attach to
            self._folder.rmdir()

    def _dispatch(self) -> None:
        """The only thread that speaks to the scheduler. If it fails, every task does."""
        try:
            is_last = False
            while not is_last:
                self._wake.wait(POLL_SECONDS)
                self._wake.clear()
                is_last = self._is_closing
                self._send()
                if self._stopped_by:
                    self._stop(self._stopped_by)
                for job in self._jobs:
                    job.follow(self._tell)
                self._notice_ends()
        except Exception as error:
            waiting = [future for future, _, _ in self._queue]
            going_on = [job for job in self._jobs if job.name and not job.is_settled]
            for future in [*waiting, *(future for job in self._jobs for future in job.futures)]:
                if future.running() or (not future.done() and future.set_running_or_notify_cancel()):
                    future.set_exception(error)
            self._queue.clear()
            self._jobs = [job for job in self._jobs if job not in going_on]  # whose folders are in use

    def _send(self) -> None:
        """Everything, as one array, while no job is left; then a job more for each that has ended."""
        is_quiet = time.monotonic() > self._submitted_at + QUIET_SECONDS
        if not self._queue or self._stopped_by or not is_quiet:
            return
        num_left = sum(not job.is_settled for job in self._jobs)
        room = max(self.num_workers - num_left, 0) if num_left else MOST_JOBS
        jobs: list[SubmittedJob] = []
        while self._queue and len(jobs) < room:
            taken = [self._queue.popleft() for _ in range(min(self._tasks_per_job, len(self._queue)))]
            folder = JobFolder.create(self._folder / self._next_name(len(jobs)), [t[1:] for t in taken])
            jobs.append(SubmittedJob(folder, "", [future for future, _, _ in taken]))
        if jobs:
            self._jobs += jobs
            names = self._cluster.submit([job.folder.folder for job in jobs])
            for job, name in zip(jobs, names, strict=True):
                job.name = job.folder.name = name
            self._asked_at = time.monotonic()

    def _stop(self, number: int) -> None:
        """Once for each job: let it stop at a step, or not begin."""
        left = [job for job in self._jobs if not job.has_ended and not job.folder.asked_to_stop()]
        for job in left:
            job.folder.ask_to_stop(number)
        self._cluster.cancel([job.name for job in left if not job.has_begun])

    def _next_name(self, num_more: int) -> str:
        last = max((int(job.folder.folder.name) for job in self._jobs), default=0)
        return f"{last + 1 + num_more:05d}"

    def _notice_ends(self) -> None:
        """Of jobs that have ended without all results: their nodes or processes have died."""
        now = time.monotonic()
        left = {job.name: job for job in self._jobs if not job.is_settled}
        if not left or now < self._asked_at + self._cluster.ask_every_seconds:
            return
        self._asked_at, ended = now, self._cluster.ended(list(left))
        for name, job in left.items():
            if name not in ended:
                job.ended_since = None
            elif job.ended_since is None:
                job.ended_since = now
            elif now > job.ended_since + GRACE_SECONDS:
                job.follow(self._tell)
                if not job.is_settled:
                    job.fail(WorkerDied(self._cluster.how_it_ended(name)))
