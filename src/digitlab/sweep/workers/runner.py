"""Runs the trials of a frozen sweep to their end, whatever happens on the way.

The one process that owns the sweep's folder hands trials to an executor, writes the journal and ends
the sweep's own run. Everything it needs to go on after a kill is on disk before it is needed.
"""

import dataclasses
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from digitlab.config import project
from digitlab.results.trial_result import State, TrialResult
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep import parent_run
from digitlab.sweep.finished import result_of
from digitlab.sweep.manifest import Manifest, SweepFolder, Trial
from digitlab.sweep.settings import InProcessSettings
from digitlab.sweep.workers.chunk import ChunkTask, Failing, Refused, run_chunk
from digitlab.sweep.workers.cores import usable_cores
from digitlab.sweep.workers.display import SweepDisplay
from digitlab.sweep.workers.executors import InProcess, Processes, TaskFailed, WorkerDied
from digitlab.sweep.workers.gpus import gpu_environment, visible_gpus
from digitlab.sweep.workers.trial import Task, run_trial
from digitlab.tracking.delivery import Delivery
from digitlab.tracking.leftovers import close_dead_records
from digitlab.tracking.names import SWEEP_TAG, SWEPT_TAG, TRIAL_TAG
from digitlab.tracking.run_folder import DamagedRecord, Membership, RunFolder
from digitlab.tracking.stored_run import undelivered

POLL_SECONDS = 0.2

Running = dict[Future[Any], list[Trial]]


class Source(Protocol):
    """Where trials come from. Called under a lock, from several threads."""

    @property
    def results(self) -> Sequence[TrialResult]:
        """Among them those of trials that were found finished when it was their turn."""

    def take(self) -> list[Trial]:
        """A trial to start now, or several to be trained side by side; none: none at present, perhaps
        after the next one has ended."""

    def heard(self, number: int, epoch: int, metrics: dict[str, float]) -> str | None:
        """A running trial's epoch; a reason to give the trial up, or None."""

    def told(self, result: TrialResult) -> None:
        """A trial has ended for good."""


class Listed:
    """The trials of a grid, chunk by chunk."""

    results: Sequence[TrialResult] = ()  # the finished ones were left out when it was made

    def __init__(self, chunks: Iterable[list[Trial]]) -> None:
        self._chunks = iter(chunks)

    def take(self) -> list[Trial]:
        return next(self._chunks, [])

    def heard(self, number: int, epoch: int, metrics: dict[str, float]) -> str | None:
        return None

    def told(self, result: TrialResult) -> None:
        """A grid learns nothing."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the command line asks for."""

    fail_fast: bool = False
    retries: int = 0


class Runner:
    """One invocation's work on a sweep. Results appear in `results` as trials end."""

    def __init__(
        self,
        folder: SweepFolder,
        manifest: Manifest,
        source: Source,
        *,
        policy: Policy,
        display: SweepDisplay,
        interrupts: Interrupts,
        say: Callable[[str], None],
        task: Callable[..., TrialResult] | None = None,
    ) -> None:
        self.results: list[TrialResult] = []
        self._folder, self._manifest, self._source = folder, manifest, source
        self._policy, self._display, self._interrupts, self._say = policy, display, interrupts, say
        self._task = task
        self._lock = threading.Lock()
        self._is_stopping = False
        self._attempts, self._tries = attempts(folder), dict[int, int]()
        self._heard: queue.SimpleQueue[TrialResult | Refused] = queue.SimpleQueue()  # from chunks
        self._in_chunks: dict[int, Trial] = {}  # that have not ended yet

    def run(self) -> None:
        """Until there is nothing left to start and nothing running.

        Raises:
            Interrupted: asked to stop; the running trials have been stopped at their next step.
        """
        executor = self._executor()
        running: Running = {}
        self._display.start()
        try:
            while self._interrupts.signal_number is None:
                self._start_more(executor, running)
                if not running:
                    break
                done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                self._settle_heard(executor, running)
                for future in done:
                    self._settle(future, running.pop(future), executor, running)
                if self._policy.fail_fast and any(r.state == "FAILED" for r in self.results):
                    break
            self._stop(executor, running)
            self._interrupts.check()
        finally:
            executor.shutdown(cancel_futures=True)
            self._display.stop()

    def _executor(self) -> InProcess | Processes:
        settings = self._manifest.settings.executor
        if isinstance(settings, InProcessSettings):
            return InProcess(self._hear, self._interrupts)
        workers = num_workers(self._manifest)
        if self._manifest.device == "cuda" and (gpus := visible_gpus()):
            return Processes(workers, self._hear, gpu_environment(gpus, settings.per_gpu))
        return Processes(workers, self._hear)

    def _start_more(self, executor: InProcess | Processes, running: Running) -> None:
        """As many as there are workers, and of a grid as many again, so that none waits for us."""
        ahead = 1 if self._manifest.is_search or isinstance(executor, InProcess) else 2
        while len(running) < ahead * executor.num_workers:
            with self._lock:
                trials = self._source.take()
            if not trials:
                return
            running[self._submit(executor, trials)] = trials
            if isinstance(executor, InProcess):
                return

    def _submit(self, executor: InProcess | Processes, trials: list[Trial]) -> Future[Any]:
        tasks = [self._task_for(trial) for trial in trials]
        if len(tasks) == 1:
            return executor.submit(self._task or run_trial, tasks[0])
        self._in_chunks |= {trial.number: trial for trial in trials}
        must_gain = self._manifest.settings.engine.name == "auto"
        return executor.submit(run_chunk, ChunkTask(tasks=tasks, must_gain=must_gain))

    def _task_for(self, trial: Trial) -> Task:
        tags = {f"{SWEPT_TAG}{knob}": text for knob, text in trial.swept.items()}
        member = Membership(
            record_id=self._record_id(trial.number),
            sweep=parent_run.record_id(self._manifest),
            tracking_uri=self._manifest.tracking_uri,
            name=trial.name,
            tags={SWEEP_TAG: self._manifest.id, TRIAL_TAG: str(trial.number), **tags},
            command=self._manifest.command,
        )
        self._folder.log("started", number=trial.number, record=member.record_id)
        decides = self._manifest.settings.sweep.pruner != "none"
        return Task(trial=trial, member=member, tells_every_epoch=decides)

    def _hear(self, said: Any) -> str | None:
        """A worker's words; called in the executor's thread."""
        if isinstance(said, Refused | TrialResult):
            self._heard.put(said)
            return None
        if isinstance(said, Failing):
            if self._policy.fail_fast and not self._policy.retries:
                self._is_stopping = True
                return "stopped at the first failure"
            return None
        if isinstance(said, signal.Signals):  # whoever is signalled, all of them stop
            self._interrupts.request(said)
            return None
        self._display.progress(said)
        with self._lock:
            return self._source.heard(said.number, said.epoch, said.metrics)

    def _settle(
        self,
        future: Future[Any],
        trials: list[Trial],
        executor: InProcess | Processes,
        running: Running,
    ) -> None:
        """Write down what came of a trial, or of those of a chunk that have not been heard of."""
        if len(trials) == 1:
            self._settle_one(*self._outcome(future, trials[0]), trials[0], executor, running)
            return
        self._settle_heard(executor, running)
        left = [trial for trial in trials if self._in_chunks.pop(trial.number, None)]
        found, told = dict[int, TrialResult](), ""
        try:
            found = {result.number: result for result in future.result()}
        except (WorkerDied, TaskFailed) as error:
            told = str(error).strip().splitlines()[-1]
        alone = []
        for trial in left:
            result = found.get(trial.number) or self._after_death(trial, told)
            if result.state == "INTERRUPTED" and not self._must_end:
                told = result.error or ""
                alone.append(trial)
            else:
                self._settle_one(result, False, trial, executor, running)
        if alone:
            self._say(f"{len(alone)} trials side by side were stopped ({told}): they go on one by one")
            for trial in alone:
                running[self._submit(executor, [trial])] = [trial]

    @property
    def _must_end(self) -> bool:
        return self._is_stopping or self._interrupts.signal_number is not None

    def _settle_heard(self, executor: InProcess | Processes, running: Running) -> None:
        """Trials that have ended while others of their chunk go on, and chunks that were refused."""
        while not self._heard.empty():
            result = self._heard.get()
            if isinstance(result, Refused):
                self._say(str(result))
            elif trial := self._in_chunks.pop(result.number, None):
                self._settle_one(result, False, trial, executor, running)

    def _settle_one(
        self,
        result: TrialResult,
        has_died: bool,
        trial: Trial,
        executor: InProcess | Processes,
        running: Running,
    ) -> None:
        """Write down what came of a trial; start it again if that is wanted and may help."""
        if result.traceback:
            result = dataclasses.replace(result, traceback=self._keep_traceback(result))
        self._folder.log("ended", died=has_died, **result.to_json())
        if result.state == "FAILED" and not has_died:
            self._attempts[trial.number] = self._attempts.get(trial.number, 0) + 1
        tries = self._tries[trial.number] = self._tries.get(trial.number, 0) + 1
        may_help = result.state == "FAILED" and not result.is_final
        if may_help and tries <= self._policy.retries:
            self._say(f"{trial.name}: {result.error}; trying again ({tries} of {self._policy.retries})")
            running[self._submit(executor, [trial])] = [trial]
            return
        self.results.append(result)
        self._display.ended(result)
        if result.state != "INTERRUPTED":
            with self._lock:
                self._source.told(result)

    def _outcome(self, future: Future[Any], trial: Trial) -> tuple[TrialResult, bool]:
        """Of a trial by itself, and whether its worker has died."""
        try:
            return future.result(), False
        except WorkerDied as error:
            result = self._after_death(trial, str(error))
            has_died = result.state != "FINISHED"
            return dataclasses.replace(result, state="FAILED") if has_died else result, has_died
        except TaskFailed as error:
            last = str(error).strip().splitlines()[-1]
            failed = _result(trial, state="FAILED", error=last)
            return dataclasses.replace(failed, traceback=str(error)), False

    def _after_death(self, trial: Trial, cause: str) -> TrialResult:
        """End the record that a dead worker has left, in the store too: it may have been finished."""
        cut_short = _result(trial, state="INTERRUPTED", error=cause)
        try:
            record = RunFolder.load(project.records() / self._record_id(trial.number))
        except DamagedRecord:  # or none
            return cut_short
        left = undelivered(record)
        close_dead_records([record], lambda message: None)
        if record.try_to_own():
            Delivery(record, self._say).finish()
            record.release()
        run_id = record.delivered.run_id
        if left.status == "FINISHED":
            return dataclasses.replace(result_of(trial, left), run_id=run_id, reused=False)
        return dataclasses.replace(cut_short, run_id=run_id)

    def _stop(self, executor: InProcess | Processes, running: Running) -> None:
        """Let running trials stop at their next step, and write down what came of them."""
        self._is_stopping = True
        if running:
            executor.interrupt(self._interrupts.signal_number or signal.SIGINT)
        for future in list(running):
            if future.cancel():
                running.pop(future)
        for future, trials in running.items():
            wait([future])
            self._settle(future, trials, executor, {})

    def _record_id(self, number: int) -> str:
        attempt = self._attempts.get(number, 0)
        return f"{self._manifest.id}-{number:04d}" + (f"-{attempt + 1}" if attempt else "")

    def _keep_traceback(self, result: TrialResult) -> str:
        file = self._folder.tracebacks / f"{result.number:04d}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(result.traceback or "")
        return str(file)


def _result(trial: Trial, *, state: State, error: str) -> TrialResult:
    """Of a trial that nothing else is known of."""
    return TrialResult(
        number=trial.number,
        point=trial.point,
        name=trial.name,
        state=state,
        swept=trial.swept,
        error=error,
    )


def num_workers(manifest: Manifest) -> int:
    """Trials that are trained at the same time."""
    settings = manifest.settings.executor
    if isinstance(settings, InProcessSettings):
        return 1
    if manifest.device == "cuda" and (gpus := visible_gpus()):
        return settings.workers or len(gpus) * settings.per_gpu
    configs = [trial.values for trial in manifest.trials] or [base.values for base in manifest.bases]
    threads = max(values["threads"] for values in configs)
    return settings.workers or max(usable_cores() // threads, 1)


def attempts(folder: SweepFolder) -> dict[int, int]:
    """How often each trial has failed by itself; what was cut short goes on where it was."""
    found: dict[int, int] = {}
    for event in folder.events():
        if event["event"] == "ended" and event["state"] == "FAILED" and not event["died"]:
            found[event["number"]] = found.get(event["number"], 0) + 1
    return found


def earlier_results(folder: SweepFolder) -> dict[int, TrialResult]:
    """The last end of every trial, from the journal."""
    ended = (event for event in folder.events() if event["event"] == "ended")
    return {event["number"]: TrialResult.from_json(event) for event in ended}
