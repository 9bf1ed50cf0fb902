"""SLURM by submitit, which writes the batch script, submits arrays and queues a job again in time.

What runs and waits, squeue is asked: it needs no accounting, and knows of a job that is queued again.
"""

import math
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from digitlab.errors import UsageError
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.settings import SlurmSettings
from digitlab.sweep.workers.executors.executor import Needs
from digitlab.sweep.workers.executors.job import work
from digitlab.sweep.workers.executors.jobs import MOST_JOBS, Jobs
from digitlab.text.terminal import say
from digitlab.text.throttle import Throttle

COMMANDS = ("srun", "sbatch", "squeue", "scancel")  # submitit looks for the first
WARNING_SECONDS = 60  # before the time limit, in which a step ends and a checkpoint is written
MOST_REQUEUES = 1000
ANSWER_SECONDS = 60
WAITING_SECONDS = 60.0
TIME_IS_UP = signal.SIGUSR2  # as submitit asks SLURM to send it


class Slurm(Jobs):
    """The executor over SLURM."""

    def __init__(self, settings: SlurmSettings, needs: Needs) -> None:
        cluster = _Cluster(settings, needs)
        super().__init__(cluster, name=settings.name, tasks_per_job=settings.trials_per_job)


class _Cluster:
    ask_every_seconds = 10.0

    def __init__(self, settings: SlurmSettings, needs: Needs) -> None:
        self.num_workers = settings.workers or MOST_JOBS
        self._settings, self._threads = settings, needs.threads

    def open(self, sweep: str, folder: Path) -> None:
        missing = [command for command in COMMANDS if shutil.which(command) is None]
        if missing:
            raise UsageError(
                f"executor=slurm needs SLURM's commands on this machine, and {missing[0]} is not among "
                "its programs: type this on a login node of the cluster, or use executor=processes"
            )
        try:
            import submitit
        except ImportError:
            raise UsageError(
                "executor=slurm needs submitit: pip install 'digitlab[slurm]' (a checkout: make setup)"
            ) from None
        self._name, self._logs = f"digitlab-{sweep}", folder / "logs"
        self._has_submitted = False
        self._waiting = Throttle(WAITING_SECONDS)
        self._waiting.rest()
        python = f"exec {shlex.quote(sys.executable)}"  # in place of the shell: signals reach it
        executor = submitit.SlurmExecutor(self._logs, max_num_timeout=MOST_REQUEUES, python=python)
        executor.update_parameters(**self._parameters())
        self._executor = executor

    def _parameters(self) -> dict[str, Any]:
        chosen = self._settings
        pattern = str(self._logs.absolute()).replace("%", "%%") + "/%j"
        name = TIME_IS_UP.name.removeprefix("SIG")
        warning = min(WARNING_SECONDS, chosen.minutes * 15)
        options = {
            "requeue": True,
            "output": f"{pattern}.out",
            "error": f"{pattern}.err",
            "signal": f"B:{name}@{warning}",
            "mem": chosen.memory,
            **chosen.sbatch,
        }
        parameters = {
            "job_name": self._name,
            "partition": chosen.partition,
            "time": chosen.minutes,
            "cpus_per_task": chosen.cpus or self._threads,
            "gpus_per_node": chosen.gpus or None,
            "use_srun": False,
            "setup": [f"trap '' {name}"],  # while Python starts and cannot heed it yet
            "array_parallelism": self.num_workers,
            "additional_parameters": {k: v for k, v in options.items() if v not in (None, False)},
        }
        return {k: v for k, v in parameters.items() if v is not None}

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        from submitit.core.utils import FailedJobError

        try:
            queued = self._executor.map_array(_Task(), [str(job) for job in jobs])
        except FailedJobError as error:
            lines = str(error).strip().splitlines()
            text = next((line for line in lines if line.startswith("sbatch:")), lines[-1])
            raise UsageError(f"SLURM takes no job: {text} (executor.* are its options)") from None
        if not self._has_submitted:
            say(f"jobs are in SLURM's queue: squeue --name {self._name}; their logs: {self._logs}")
        self._has_submitted = True
        return [job.job_id for job in queued]

    def ended(self, names: Collection[str]) -> Collection[str]:
        listed = _output("squeue", "--noheader", "--array", "--name", self._name, "--format=%i %T %r")
        if listed is None:
            return ()
        jobs = [line.split(maxsplit=2) for line in listed.splitlines()]
        self._say_if_all_wait(jobs)
        return set(names) - {job[0] for job in jobs}

    def _say_if_all_wait(self, jobs: Sequence[Sequence[str]]) -> None:
        """Once, after a minute: some wait for what no node has, and SLURM never says so by itself."""
        if not self._waiting.is_due() or not jobs or any(job[1] != "PENDING" for job in jobs):
            return
        reasons = ", ".join(sorted({job[2] for job in jobs}))
        say(f"no job has begun within a minute ({reasons}): squeue --name {self._name}")
        self._waiting.rest(math.inf)

    def how_it_ended(self, name: str) -> str:
        listed = _output(
            *("sacct", "--allocations", "--noheader", "--parsable2", "--jobs", name),
            "--format=State,NodeList,JobIDRaw",
        )
        if not listed:
            return f"its SLURM job {name} ended without a word (logs: {self._logs})"
        state, node, number = listed.strip().splitlines()[-1].split("|")
        return f"its SLURM job {name} ended: {state} on {node} (log: {self._logs / number}.err)"

    def cancel(self, names: Collection[str]) -> None:
        if names:
            _output("scancel", *names)

    def forget(self, names: Collection[str]) -> None:
        from submitit.core.utils import JobPaths

        for paths in (JobPaths(self._logs, name) for name in names):
            paths.submitted_pickle.unlink(missing_ok=True)
            paths.result_pickle.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is open."""


class _Task:
    """What submitit lets a job call, and again after the job was queued again."""

    def __call__(self, folder: str) -> None:
        from submitit import JobEnvironment

        interrupts = Interrupts()

        def time_is_up(number: int, _frame: FrameType | None) -> None:
            interrupts.request(number)

        queue_again = signal.signal(TIME_IS_UP, time_is_up)
        with interrupts, interrupts.deferred():
            number = work(Path(folder), JobEnvironment().job_id, interrupts)
        if number == TIME_IS_UP:
            assert callable(queue_again), "submitit's"
            queue_again(number, None)
        if number is not None:
            sys.exit(128 + number)

    def checkpoint(self, folder: str) -> Any:
        """submitit's word for what the job is to do when it has been queued again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder)


def _output(*command: str) -> str | None:
    """None if the command fails: SLURM's controller may be away for a while."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return None
