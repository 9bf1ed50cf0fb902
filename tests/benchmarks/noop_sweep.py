"""digitlab's side of `make bench-sweep`: a real sweep, but for its training and its tracking store.

The command line, planning, the frozen manifest, the journal, the runner and the executors are real.
Says at its end what the controlling process has used on the way.
"""

import dataclasses
import json
import sys

import psutil

from digitlab.config import project
from digitlab.results.trial_result import TrialResult
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.manifest import Manifest
from digitlab.sweep.planning.plan import plan
from digitlab.sweep.sweep_folder import SweepFolder, new_id
from digitlab.sweep.workers.display import SweepDisplay
from digitlab.sweep.workers.executors.table import executor_of
from digitlab.sweep.workers.runner import Runner
from digitlab.sweep.workers.source import Listed

SAMPLE_EVERY = 100  # trials


def main() -> None:
    launch(plan(sys.argv[1:]))


def no_op(task, *, tell, interrupts) -> TrialResult:  # type: ignore[no-untyped-def]
    """A trial that is over at once."""
    trial = task.trial
    return TrialResult(
        number=trial.number,
        point=trial.point,
        name=trial.name,
        state="FINISHED",
        swept=trial.swept,
        metrics={"chosen/validation_accuracy": 0.5},
    )


def launch(planned: Manifest) -> None:
    """What sweep/launch.py does, without MLflow; prints the samples as JSON."""
    manifest = dataclasses.replace(planned, id=new_id(project.sweeps(), planned.key))
    folder = SweepFolder(project.sweeps() / manifest.id)
    folder.freeze(manifest)
    folder.own()
    folder.log("planned", command=manifest.command)
    display = Sampling(manifest.num_trials)
    executor = executor_of(manifest)
    submit = executor.submit
    executor.submit = lambda _train, task: submit(no_op, task)  # type: ignore[method-assign]
    with Interrupts() as interrupts, interrupts.deferred():
        runner = Runner(
            folder,
            manifest,
            Listed([trial] for trial in manifest.trials),
            executor,
            display=display,
            interrupts=interrupts,
            say=print,
        )
        runner.run()
    assert len(runner.results) == manifest.num_trials
    folder.log("finished", status="FINISHED")
    folder.release()
    print(json.dumps(display.samples))


class Sampling(SweepDisplay):
    """Notes the memory and the open files of this process, the controlling one, now and then."""

    def __init__(self, num_trials: int) -> None:
        super().__init__(num_trials, 0, "chosen/validation_accuracy")
        self.samples: list[dict[str, int]] = []
        self._process, self._ended = psutil.Process(), 0

    def ended(self, result: TrialResult) -> None:
        super().ended(result)
        self._ended += 1
        if self._ended % SAMPLE_EVERY == 0:
            rss, fds = self._process.memory_info().rss, self._process.num_fds()
            self.samples.append({"trial": self._ended, "rss": rss, "fds": fds})
