"""Every executor by its name in conf/executor/, and the one that a sweep is run by."""

from collections.abc import Callable
from typing import Any

from digitlab.sweep.manifest import Manifest
from digitlab.sweep.workers.executors.dask import Dask
from digitlab.sweep.workers.executors.executor import Executor, Needs
from digitlab.sweep.workers.executors.in_process import InProcess
from digitlab.sweep.workers.executors.processes import Processes
from digitlab.sweep.workers.executors.slurm import Slurm

EXECUTORS: dict[str, Callable[[Any, Needs], Executor]] = {
    "inprocess": InProcess,
    "processes": Processes,
    "slurm": Slurm,
    "dask": Dask,
}


def executor_of(manifest: Manifest) -> Executor:
    """The one of its settings, not started yet."""
    configs = [trial.values for trial in manifest.trials] or [base.values for base in manifest.bases]
    needs = Needs(device=manifest.device, threads=max(values["threads"] for values in configs))
    settings = manifest.settings.executor
    return EXECUTORS[settings.name](settings, needs)
