from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class SweeperSettings:
    _target_: str = "hydra_plugins.digitlab.sweeper.DigitlabSweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="digitlab", node=SweeperSettings, provider="digitlab"
)


class DigitlabSweeper(Sweeper):
    """Expands or searches the space and freezes the manifest; a launcher of another kind than ours is
    given the checked trials of a grid, as any launcher of Hydra's is."""

    def __init__(self) -> None:
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        from digitlab.sweep.hydra_bridge import sweep

        assert self.launcher is not None, "Hydra calls setup first"
        return sweep(arguments, self.launcher)
