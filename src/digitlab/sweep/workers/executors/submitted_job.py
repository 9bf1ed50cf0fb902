"""A job on the controller's side, from its folder: what it says, and what becomes of its futures.

Knows no scheduler.
"""

import dataclasses
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from digitlab.errors import UsageError
from digitlab.sweep.workers.executors.executor import TaskFailed, Tell
from digitlab.sweep.workers.executors.job import NOBODY, JobFolder, decoded

JOBS = "jobs"  # in a sweep's folder; there a folder for each executor, and in that one for each job


@dataclasses.dataclass(slots=True, eq=False)
class SubmittedJob:
    """The controller's side of a job. position: in what it says, up to where that is known."""

    folder: JobFolder
    name: str
    futures: list[Future[Any]]
    position: int = 0
    ended_since: float | None = None

    @property
    def is_settled(self) -> bool:
        return all(future.done() for future in self.futures)

    @property
    def has_ended(self) -> bool:
        """Whether all its tasks have ended. A cancelled one has not: its job may still begin."""
        return all(future.done() and not future.cancelled() for future in self.futures)

    @property
    def has_begun(self) -> bool:
        return any(
            future.running() or future.done() for future in self.futures if not future.cancelled()
        )

    def follow(self, tell: Tell) -> None:
        """Let the futures know of what it has said since."""
        lines, self.position = self.folder.said.lines_since(self.position)
        for line in filter(None, lines):
            self._note(self.futures[line["task"]], line["kind"], decoded(line["content"]), tell)

    def _note(self, future: Future[Any], kind: str, content: Any, tell: Tell) -> None:
        if future.done() or not (future.running() or future.set_running_or_notify_cancel()):
            return
        if kind == "tell" and (answer := tell(content)):
            self.folder.answer(getattr(content, "number", 0), answer)
        elif kind == "result":
            future.set_result(content)
        elif kind == "error":
            future.set_exception(TaskFailed(content))

    def fail(self, error: Exception) -> None:
        for future in self.futures:
            if future.running() or (not future.done() and future.set_running_or_notify_cancel()):
                future.set_exception(error)


def left_by_another(folder: Path) -> SubmittedJob | None:
    """A job that an earlier controller queued; None if it had not got so far, and cannot any more."""
    job = JobFolder(folder)
    try:
        num_tasks = len(job.tasks())
    except OSError:
        num_tasks = 0
    name = job.name or job.owner
    if not num_tasks or (name is None and job.claim(NOBODY)):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    job.name = name = name or job.owner or NOBODY  # a job may have claimed it just now
    return SubmittedJob(job, name, [Future() for _ in range(num_tasks)])


def has_jobs(folder: Path, *, but_of: str = "") -> bool:
    """Whether a controller has left jobs in the folder of a sweep. but_of: an executor to leave out."""
    return any(job.parent.name not in ("logs", but_of) for job in (folder / JOBS).glob("*/*"))


def refuse_jobs_of_others(folder: Path, executor: str) -> None:
    """folder: of a sweep that is to be run by this executor.

    Raises:
        UsageError: another one has left jobs there.
    """
    if has_jobs(folder, but_of=executor):
        raise UsageError(
            f"sweep {folder.name} has jobs of another executor than {executor}: go on with that one "
            f"(digitlab resume {folder.name}; Ctrl-C stops them), or delete {folder / JOBS}"
        )
