"""Runs the trials of a frozen sweep to their end, whatever happens on the way.

The one process that owns the sweep's folder hands trials to an executor, writes the journal and ends
the sweep's own run. Everything it needs to go on after a kill is on disk before it is needed.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from digitlab import project
from digitlab.interrupts import Interrupts
from digitlab.reaping import close_dead_records
from digitlab.record import Membership, Record
from digitlab.sweep import own_run
from digitlab.sweep.display import SweepDisplay
from digitlab.sweep.executors import (
    InProcess,
    Processes,
    TaskFailed,
    WorkerDied,
    default_workers,
    gpu_environment,
    visible_gpus,
)
from digitlab.sweep.finished import result_of
from digitlab.sweep.manifest import Manifest, SweepFolder, Trial
from digitlab.sweep.results import TrialResult
from digitlab.sweep.settings import InProcessSettings
from digitlab.sweep.work import Task, run_trial
from digitlab.tracking.delivery import Delivery
from digitlab.tracking.runs import undelivered

POLL_SECONDS = 0.2


class Source(Protocol):
    """Where trials come from. Called under a lock, from several threads."""

    def take(self) -> Trial | None:
        """A trial to start now; None: none at present, perhaps after the next one has ended."""

    def heard(self, number: int, epoch: int, metrics: dict[str, float]) -> str | None:
        """A running trial's epoch; a reason to give the trial up, or None."""

    def told(self, result: TrialResult) -> None:
        """A trial has ended for good."""


class Listed:
    """The trials of a grid, in their order."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._trials = iter(trials)

    def take(self) -> Trial | None:
        return next(self._trials, None)

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
        self._attempts, self._tries = attempts(folder), dict[int, int]()

    def run(self) -> None:
        """Until there is nothing left to start and nothing running.

        Raises:
            Interrupted: asked to stop; the running trials have been stopped at their next step.
        """
        executor = self._executor()
        running: dict[Future[TrialResult], Trial] = {}
        self._display.start()
        try:
            while self._interrupts.signal_number is None:
                self._start_more(executor, running)
                if not running:
                    break
                done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
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

    def _start_more(
        self, executor: InProcess | Processes, running: dict[Future[TrialResult], Trial]
    ) -> None:
        """As many as there are workers, and of a grid as many again, so that none waits for us."""
        ahead = 1 if self._manifest.is_search or isinstance(executor, InProcess) else 2
        while len(running) < ahead * executor.num_workers:
            with self._lock:
                trial = self._source.take()
            if trial is None:
                return
            running[self._submit(executor, trial)] = trial
            if isinstance(executor, InProcess):
                return

    def _submit(self, executor: InProcess | Processes, trial: Trial) -> Future[TrialResult]:
        tags = {f"swept.{knob}": text for knob, text in trial.swept.items()}
        member = Membership(
            record_id=self._record_id(trial.number),
            sweep=own_run.record_id(self._manifest),
            tracking_uri=self._manifest.tracking_uri,
            name=trial.name,
            tags={"sweep": self._manifest.id, "trial": str(trial.number), **tags},
            command=self._manifest.command,
        )
        self._folder.log("started", number=trial.number, record=member.record_id)
        decides = self._manifest.settings.sweep.pruner != "none"
        task = Task(trial=trial, member=member, tells_every_epoch=decides)
        return executor.submit(self._task or run_trial, task)

    def _hear(self, said: Any) -> str | None:
        """A worker's words; called in the executor's thread."""
        self._display.progress(said)
        with self._lock:
            return self._source.heard(said.number, said.epoch, said.metrics)

    def _settle(
        self,
        future: Future[TrialResult],
        trial: Trial,
        executor: InProcess | Processes,
        running: dict[Future[TrialResult], Trial],
    ) -> None:
        """Write down what came of a trial; start it again if that is wanted and may help."""
        result, has_died = self._outcome(future, trial)
        if result.traceback:
            result = dataclasses.replace(result, traceback=self._keep_traceback(result))
        self._folder.log("ended", died=has_died, **result.to_json())
        if result.state == "FAILED" and not has_died:
            self._attempts[trial.number] = self._attempts.get(trial.number, 0) + 1
        tries = self._tries[trial.number] = self._tries.get(trial.number, 0) + 1
        may_help = has_died or result.traceback is not None  # a divergence would come again
        if result.state == "FAILED" and may_help and tries <= self._policy.retries:
            self._say(f"{trial.name}: {result.error}; trying again ({tries} of {self._policy.retries})")
            running[self._submit(executor, trial)] = trial
            return
        self.results.append(result)
        self._display.ended(result)
        if result.state != "INTERRUPTED":
            with self._lock:
                self._source.told(result)

    def _outcome(self, future: Future[TrialResult], trial: Trial) -> tuple[TrialResult, bool]:
        failed = TrialResult(
            number=trial.number, point=trial.point, name=trial.name, state="FAILED", swept=trial.swept
        )
        try:
            return future.result(), False
        except WorkerDied as error:
            return self._after_death(trial, dataclasses.replace(failed, error=str(error)))
        except TaskFailed as error:
            last = str(error).strip().splitlines()[-1]
            return dataclasses.replace(failed, error=last, traceback=str(error)), False

    def _after_death(self, trial: Trial, failed: TrialResult) -> tuple[TrialResult, bool]:
        """End the record that a dead worker has left, in the store too. It may have been finished."""
        folder = project.records() / self._record_id(trial.number)
        if not (folder / "run.json").exists():
            return failed, True
        record = Record.load(folder)
        finished = undelivered(record)
        close_dead_records([record], lambda message: None)
        if record.try_to_own():
            Delivery(record, self._say).finish()
            record.release()
        run_id = record.delivered.run_id
        if finished.status == "FINISHED":
            return dataclasses.replace(result_of(trial, finished), run_id=run_id, reused=False), False
        return dataclasses.replace(failed, run_id=run_id), True

    def _stop(self, executor: InProcess | Processes, running: dict[Future[TrialResult], Trial]) -> None:
        """Let running trials stop at their next step, and write down what came of them."""
        executor.interrupt()
        for future in list(running):
            if future.cancel():
                running.pop(future)
        for future, trial in running.items():
            wait([future])
            self._settle(future, trial, executor, {})

    def _record_id(self, number: int) -> str:
        attempt = self._attempts.get(number, 0)
        return f"{self._manifest.id}-{number:04d}" + (f"-{attempt + 1}" if attempt else "")

    def _keep_traceback(self, result: TrialResult) -> str:
        file = self._folder.tracebacks / f"{result.number:04d}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(result.traceback or "")
        return str(file)


def num_workers(manifest: Manifest) -> int:
    """Trials that are trained at the same time."""
    settings = manifest.settings.executor
    if isinstance(settings, InProcessSettings):
        return 1
    if manifest.device == "cuda" and (gpus := visible_gpus()):
        return settings.workers or len(gpus) * settings.per_gpu
    configs = [trial.values for trial in manifest.trials] or [base.values for base in manifest.bases]
    return settings.workers or default_workers(max(values["threads"] for values in configs))


def attempts(folder: SweepFolder) -> dict[int, int]:
    """How often each trial has failed by itself; what was cut short goes on where it was."""
    found: dict[int, int] = {}
    for event in folder.events():
        if event["event"] == "ended" and event["state"] == "FAILED" and not event["died"]:
            found[event["number"]] = found.get(event["number"], 0) + 1
    return found


def earlier_results(folder: SweepFolder) -> dict[int, TrialResult]:
    """The last end of every trial, from the journal."""
    names = {field.name for field in dataclasses.fields(TrialResult)}
    return {
        event["number"]: TrialResult(**{k: v for k, v in event.items() if k in names})
        for event in folder.events()
        if event["event"] == "ended"
    }
