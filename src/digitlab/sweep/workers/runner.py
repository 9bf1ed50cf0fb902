"""Runs the trials of a frozen sweep to their end, whatever happens on the way.

The one process that owns the sweep's folder hands trials to an executor and writes the journal.
Everything it needs to go on after a kill is on disk before it is needed. Knows no executor by name.
"""

import dataclasses
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from digitlab.config import project
from digitlab.results.trial_result import TrialResult
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep import parent_run
from digitlab.sweep.ending.stop_rule import StopRule
from digitlab.sweep.manifest import Manifest, Trial
from digitlab.sweep.sweep_folder import SweepFolder
from digitlab.sweep.workers.chunk import ChunkTask, Refusal, run_chunk
from digitlab.sweep.workers.deliveries import Deliveries
from digitlab.sweep.workers.display import SweepDisplay
from digitlab.sweep.workers.entry import Failure
from digitlab.sweep.workers.executors.executor import Executor, TaskFailed, UnderWay, WorkerDied
from digitlab.sweep.workers.outcomes import after_death, last_line, outcome
from digitlab.sweep.workers.source import Source
from digitlab.sweep.workers.trial import Task, run_trial
from digitlab.tracking.connection.location import sqlite_file
from digitlab.tracking.names import SWEEP_TAG, SWEPT_TAG, TRIAL_TAG
from digitlab.tracking.run_folder import Membership

POLL_SECONDS = 0.2


class Runner:
    """One invocation's work on a sweep. Results appear in `results` as trials end.

    under_way: tasks that an earlier invocation has submitted, each with its trials that have not ended.
    """

    def __init__(
        self,
        folder: SweepFolder,
        manifest: Manifest,
        source: Source,
        executor: Executor,
        *,
        under_way: Mapping[UnderWay, list[Trial]] | None = None,
        fail_fast: bool = False,
        retries: int = 0,
        stop_rule: StopRule | None = None,
        display: SweepDisplay,
        interrupts: Interrupts,
        say: Callable[[str], None],
    ) -> None:
        self.results: list[TrialResult] = []
        self._folder, self._manifest = folder, manifest
        self._source, self._executor = source, executor
        self._fail_fast, self._retries = fail_fast, retries
        self._stop_rule = stop_rule or StopRule()
        self._display, self._interrupts, self._say = display, interrupts, say
        self._lock = threading.Lock()
        self._is_stopping = False
        self._running: dict[Future[Any], list[Trial]] = {}
        self._chunks: set[Future[Any]] = set()  # of these
        self._failures, self._tries = folder.failures(), Counter[int]()
        self._messages: queue.SimpleQueue[TrialResult | Refusal] = queue.SimpleQueue()  # of chunks
        self._in_chunks: dict[int, Trial] = {}  # that have not ended yet
        self._deliveries = Deliveries()
        for task, trials in (under_way or {}).items():
            self._note(task.future, task.args[0], trials)

    def __enter__(self) -> Self:
        """Take the executor; the first trials begin, unless the process itself must train them."""
        self._executor.start(self._answer, self._interrupts)
        if self._delivers:
            self._start_more()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._executor.shutdown()

    def run(self) -> None:
        """Until there is nothing left to start and nothing running.

        Raises:
            Interrupted: asked to stop. The running trials have been stopped at their next step; on a
                remote executor only by Ctrl-C.
        """
        self._display.start()
        try:
            while self._interrupts.signal_number is None:
                self._start_more()
                if not self._running:
                    break
                done, _ = wait(self._running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                self._settle_messages()
                for future in done:
                    self._settle(future, self._running.pop(future))
                if self._running and (reason := self._stop_rule.news()):
                    self._say(f"{reason}: no further trial starts, what runs goes on to its end")
                self._note_delivered(self._deliveries.go_on())
                if self._fail_fast and any(r.state == "FAILED" for r in self.results):
                    break
            self._stop()
            if self._interrupts.signal_number is not None:
                self._note_delivered(self._deliveries.finish())
                self._interrupts.check()
        finally:
            self._display.stop()

    def _start_more(self) -> None:
        """Of a grid as many as the executor takes; of a search, which learns, and of a sweep that may
        be stopped, as there are workers."""
        executor = self._executor
        is_ahead = not self._manifest.is_search and not self._stop_rule.may_stop
        most = executor.num_ahead if is_ahead else executor.num_workers
        while len(self._running) < most:
            with self._lock:
                trials = self._source.take()
            if not trials:
                return
            self._submit(trials)

    def _submit(self, trials: list[Trial]) -> None:
        tasks = [self._task(trial) for trial in trials]
        if len(tasks) == 1:
            self._note(self._executor.submit(run_trial, tasks[0]), tasks[0], trials)
        else:
            must_gain = self._manifest.settings.engine.name == "auto"
            chunk = ChunkTask(tasks=tasks, must_gain=must_gain)
            self._note(self._executor.submit(run_chunk, chunk), chunk, trials)

    def _note(self, future: Future[Any], task: Task | ChunkTask, trials: list[Trial]) -> None:
        self._running[future] = trials
        if isinstance(task, ChunkTask):
            self._chunks.add(future)
            self._in_chunks |= {trial.number: trial for trial in trials}

    def _task(self, trial: Trial) -> Task:
        tags = {f"{SWEPT_TAG}{knob}": text for knob, text in trial.swept.items()}
        member = Membership(
            record_id=self._record(trial).name,
            sweep=parent_run.record_id(self._manifest),
            tracking_uri=self._manifest.tracking_uri,
            name=trial.name,
            tags={SWEEP_TAG: self._manifest.id, TRIAL_TAG: str(trial.number), **tags},
            command=self._manifest.command,
            is_delivered=not self._delivers,
        )
        self._folder.log("started", number=trial.number, record=member.record_id)
        if self._delivers:
            self._deliveries.begin(trial.number, self._record(trial))
        decides = self._manifest.settings.sweep.pruner != "none"
        return Task(trial=trial, member=member, tells_every_epoch=decides)

    @property
    def _delivers(self) -> bool:
        """Whether runs reach the store from here: not from this process' own trials, nor from another
        machine, unless the store is a file, which is for the machine that it is on."""
        executor, is_file = self._executor, sqlite_file(self._manifest.tracking_uri) is not None
        return not executor.is_this_process and (is_file or not executor.is_remote)

    def _answer(self, message: Any) -> str | None:
        """The answer to a task's message; called in the executor's thread."""
        if isinstance(message, Refusal | TrialResult):
            self._messages.put(message)
            return None
        if isinstance(message, Failure):
            if self._fail_fast and not self._retries:
                self._is_stopping = True
                return "stopped at the first failure"
            return None
        if isinstance(message, signal.Signals):  # a signal to one of them stops all
            self._interrupts.request(message)
            return None
        self._display.progress(message)
        with self._lock:
            return self._source.after_epoch(message.number, message.epoch, message.metrics)

    def _settle(self, future: Future[Any], trials: list[Trial]) -> None:
        """Write down what came of a task."""
        if future not in self._chunks:
            (trial,) = trials
            result, has_died = outcome(future, trial, self._record(trial), self._say)
            self._settle_one(trial, result, has_died=has_died)
        else:
            self._settle_messages()
            self._settle_chunk(future, trials)

    def _settle_chunk(self, future: Future[Any], trials: list[Trial]) -> None:
        """What came of its trials that have not ended yet; those cut short go on one by one."""
        left = [trial for trial in trials if self._in_chunks.pop(trial.number, None)]
        results, cause = dict[int, TrialResult](), ""
        try:
            results = {result.number: result for result in future.result()}
        except (WorkerDied, TaskFailed) as error:
            cause = last_line(error)
        alone = []
        for trial in left:
            result = results.get(trial.number)
            result = result or after_death(trial, self._record(trial), cause, self._say)
            if result.state == "INTERRUPTED" and not self._must_end:
                cause = result.error or ""
                alone.append(trial)
            else:
                self._settle_one(trial, result)
        if alone:
            self._say(f"{len(alone)} trials side by side were stopped ({cause}): they go on one by one")
            for trial in alone:
                self._submit([trial])

    @property
    def _must_end(self) -> bool:
        return self._is_stopping or self._interrupts.signal_number is not None

    def _settle_messages(self) -> None:
        """Trials that have ended while others of their chunk go on, and chunks that were refused."""
        while not self._messages.empty():
            message = self._messages.get()
            if isinstance(message, Refusal):
                self._say(str(message))
            elif trial := self._in_chunks.pop(message.number, None):
                self._settle_one(trial, message)

    def _settle_one(self, trial: Trial, result: TrialResult, *, has_died: bool = False) -> None:
        """Write down what came of a trial; start it again if that is wanted and may help."""
        if result.traceback:
            result = dataclasses.replace(result, traceback=self._keep_traceback(result))
        self._folder.log("ended", died=has_died, **result.to_json())
        if result.state == "FAILED" and not has_died:
            self._failures[trial.number] += 1
        self._tries[trial.number] += 1
        tries = self._tries[trial.number]
        may_start = not self._must_end and not self._stop_rule.reason()
        may_help = result.state == "FAILED" and not result.is_final and may_start
        if may_help and tries <= self._retries:
            self._say(f"{trial.name}: {result.error}; trying again ({tries} of {self._retries})")
            self._submit([trial])
            return
        if self._delivers and result.run_id is None:
            self._deliveries.end(trial.number, self._record(trial))
        self.results.append(result)
        self._display.ended(result)
        if result.state != "INTERRUPTED":
            with self._lock:
                self._source.ended(result)

    @contextmanager
    def delivering(self, first: TrialResult | None) -> Iterator[None]:
        """Deliver what has ended beside what is done in here, and wait for it."""
        if first:
            self._deliveries.prefer(first.number)
        with ThreadPoolExecutor(1) as thread:
            delivered = thread.submit(self._deliveries.finish)
            yield
        self._note_delivered(delivered.result())

    def _note_delivered(self, run_ids: Mapping[int, str]) -> None:
        for number, run_id in run_ids.items():
            self._folder.log("delivered", number=number, run_id=run_id)

    @property
    def run_ids(self) -> Mapping[int, str]:
        """By trial, of the runs that were delivered from here after their end."""
        return self._deliveries.run_ids

    def _stop(self) -> None:
        """Let running trials stop at their next step, and write down what came of them."""
        self._is_stopping = True
        number = self._interrupts.signal_number or signal.SIGINT
        if self._executor.is_remote and number != signal.SIGINT:
            self._say("its jobs go on")  # a login that ends ends none
            return
        if self._running:
            self._executor.interrupt(number)
        begun = {future: trials for future, trials in self._running.items() if not future.cancel()}
        for future, trials in begun.items():
            wait([future])
            self._settle(future, trials)

    def _record(self, trial: Trial) -> Path:
        """The trial's run folder: the same again, unless the trial has failed by itself."""
        failures = self._failures[trial.number]
        name = f"{self._manifest.id}-{trial.number:04d}" + (f"-{failures + 1}" if failures else "")
        return project.records() / name

    def _keep_traceback(self, result: TrialResult) -> str:
        file = self._folder.tracebacks / f"{result.number:04d}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(result.traceback or "")
        return str(file)
