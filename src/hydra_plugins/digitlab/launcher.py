from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from digitlab.errors import DigitlabError


@dataclass
class LauncherSettings:
    _target_: str = "hydra_plugins.digitlab.launcher.DigitlabLauncher"


ConfigStore.instance().store(
    group="hydra/launcher", name="digitlab", node=LauncherSettings, provider="digitlab"
)


class DigitlabLauncher(Launcher):
    """Runs trials in digitlab's executors, whichever sweeper made them."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Nothing to set up: trials are composed and run by digitlab itself."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        from digitlab.sweep.hydra_bridge import run_lists

        results = run_lists([list(overrides) for overrides in job_overrides])
        states = {True: JobStatus.COMPLETED, False: JobStatus.FAILED}
        return [
            JobReturn(
                overrides=list(overrides),
                status=states[result.state == "FINISHED"],
                _return_value=result
                if result.state == "FINISHED"
                else DigitlabError(result.error or ""),
            )
            for overrides, result in zip(job_overrides, results, strict=True)
        ]
