"""A job of a scheduler, on whatever machine: tasks one after another, and the folder it has them from.

    tasks.pickle    what is to be done: functions with their arguments
    name            the job's in the scheduler, written by the controller
    owner           the same, written by the job that has begun; `-`: none may begin any more
    said.jsonl      what it says to the controller: tasks that have begun, messages, results
    answers.json    the controller's answers to messages, by the number of the trial
    stop            the number of the signal that its tasks are to stop by

Job and controller share nothing but a file system, so either may be away: a job goes on without its
controller, and one that is queued again begins with the first task that has no result. Knows no
scheduler. `python -m digitlab.sweep.workers.executors.job` does the jobs whose folders it reads.
"""

import base64
import contextlib
import json
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from digitlab.errors import Interrupted
from digitlab.runs.interrupts import Interrupts
from digitlab.text.files import write_atomically
from digitlab.text.line_files import Journal

NOBODY = "-"
COURIER_SECONDS = 0.5
EARLIER_ENDS_WITHIN_SECONDS = 300.0  # queued again, while a node that was lost still works on it

Function = Callable[..., Any]


class JobFolder:
    """The files of one job, for both sides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = Journal(folder / "said.jsonl", _is_said)

    @classmethod
    def create(cls, folder: Path, tasks: Sequence[tuple[Function, tuple[Any, ...]]]) -> Self:
        folder.mkdir(parents=True)
        write_atomically(folder / "tasks.pickle", pickle.dumps(list(tasks)))
        return cls(folder)

    def tasks(self) -> list[tuple[Function, tuple[Any, ...]]]:
        return pickle.loads((self.folder / "tasks.pickle").read_bytes())  # type: ignore[no-any-return]

    @property
    def name(self) -> str | None:
        """None if the controller died before it had written it."""
        return self._text("name")

    @name.setter
    def name(self, name: str) -> None:
        write_atomically(self.folder / "name", name)

    def claim(self, name: str) -> bool:
        """Whether this job may work on it: the first that asks, for good."""
        own = self.folder / f"owner.{name}"
        write_atomically(own, name)
        with contextlib.suppress(FileExistsError):
            (self.folder / "owner").hardlink_to(own)
        own.unlink()
        return self.owner == name

    @property
    def owner(self) -> str | None:
        """The job that has begun it, or `-`."""
        return self._text("owner")

    def answer(self, number: int, answer: str) -> None:
        write_atomically(
            self.folder / "answers.json", json.dumps({**self.answers(), str(number): answer})
        )

    def answers(self) -> dict[str, str]:
        return json.loads(self._text("answers.json") or "{}")  # type: ignore[no-any-return]

    def ask_to_stop(self, number: int) -> None:
        write_atomically(self.folder / "stop", str(number))

    def asked_to_stop(self) -> int | None:
        text = self._text("stop")
        return int(text) if text else None

    def _text(self, name: str) -> str | None:
        try:
            return (self.folder / name).read_text()
        except OSError:
            return None


def _is_said(line: dict[str, Any]) -> bool:
    is_known = line.get("kind") in ("begun", "tell", "result", "error")
    return is_known and isinstance(line.get("task"), int) and isinstance(line.get("content"), str)


def encoded(content: Any) -> str:
    return base64.b64encode(pickle.dumps(content)).decode()


def decoded(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))


class _Courier:
    """Brings what tasks say to the job's folder, and what the controller says from there, beside them.

    A disk that is full or away is tried again: no training waits for it.
    """

    def __init__(self, job: JobFolder, interrupts: Interrupts) -> None:
        self._job, self._interrupts = job, interrupts
        self._unsaid: list[dict[str, Any]] = []
        self._answers: dict[str, str] = {}
        self._is_done, self._was_asked = threading.Event(), False
        self._thread = threading.Thread(target=self._go_about, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()
        self._deliver()

    @property
    def must_end(self) -> bool:
        """Whether the machine wants the job to end, which its controller has not asked for."""
        return self._interrupts.signal_number is not None and not self._was_asked

    def say(self, kind: str, task: int, content: Any = None) -> None:
        self._unsaid.append({"kind": kind, "task": task, "content": encoded(content)})

    def tell(self, task: int, content: Any) -> str | None:
        """Returns the last answer to a message about the same trial: it comes a message late."""
        self.say("tell", task, content)
        return self._answers.get(str(getattr(content, "number", None)))

    def _go_about(self) -> None:
        while not self._is_done.wait(COURIER_SECONDS):
            with contextlib.suppress(OSError):
                self._deliver()
            self._look()

    def _look(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._answers = self._job.answers()
        if number := self._job.asked_to_stop():
            self._was_asked = True
            self._interrupts.request(number)

    def _deliver(self) -> None:
        lines = self._unsaid[:]
        if lines:
            self._job.said.append(*lines)
            del self._unsaid[: len(lines)]


def work(folder: Path, name: str, interrupts: Interrupts) -> int | None:
    """Do what of the job has no result yet. interrupts: entered, and deferred.

    Returns the signal by which the machine has ended it before it was done; else None.

    Raises:
        TimeoutError: another process does not let go of it.
    """
    job = JobFolder(folder)
    if not folder.is_dir() or not job.claim(name):
        return None  # its controller has given it up
    os.environ["DIGITLAB_HOME"] = str(folder.parents[5])
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=EARLIER_ENDS_WITHIN_SECONDS)
    except Timeout:
        raise TimeoutError(f"another process still works on {folder}") from None
    with lock, _Courier(job, interrupts) as courier:
        has_ended = {
            line["task"] for line in job.said.lines() if line and line["kind"] in ("result", "error")
        }
        for number, (function, args) in enumerate(job.tasks()):
            if number in has_ended or interrupts.signal_number is not None:
                continue
            courier.say("begun", number)
            reply = _reply(function, args, number, courier, interrupts)
            if courier.must_end:
                return interrupts.signal_number
            courier.say(reply[0], number, reply[1])
    return None


def _reply(
    function: Function, args: tuple[Any, ...], number: int, courier: _Courier, interrupts: Interrupts
) -> tuple[str, Any]:
    def tell(content: Any) -> str | None:
        return courier.tell(number, content)

    try:
        return "result", function(*args, tell=tell, interrupts=interrupts)
    except (Exception, Interrupted):
        return "error", traceback.format_exc()


def main() -> None:
    """Do jobs, of which a line each of standard input holds folder and name; say so when one is done.

    Ends when its parent process does, which closes standard input; even in the middle of a step.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(line)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while True:
        folder, name = json.loads(jobs.get())
        interrupts = Interrupts()
        with interrupts, interrupts.deferred():
            number = work(Path(folder), name, interrupts)
        if number is not None:
            sys.exit(128 + number)
        answers.write("done\n")


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    main()
