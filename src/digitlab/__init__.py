"""digitlab: experiments on handwritten digits whose results one can stand behind.

    import digitlab

    run = digitlab.train(["model=cnn", "epochs=3"])
    frame = digitlab.runs(study="digitlab").to_pandas()

What the commands do, as functions that return what came of it: docs/python.md. Nothing slow is imported
before it is needed: neither torch nor mlflow, hydra or pandas.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from digitlab.api.arrays import Data, load_data
    from digitlab.api.comparing import Comparison, compare
    from digitlab.api.composing import compose
    from digitlab.api.models import Model, load_model
    from digitlab.api.recorded import Run, Runs, runs
    from digitlab.api.reproducing import Reproduction, reproduce
    from digitlab.api.sweeping import Sweep, sweep
    from digitlab.api.training import train
    from digitlab.config.components.register import dataset, model, optimizer, scheduler
    from digitlab.config.schema import Config
    from digitlab.data.image_data import ImageData
    from digitlab.errors import (
        ConfigError,
        DataError,
        DigitlabError,
        Diverged,
        TrackingError,
        UsageError,
    )

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "Config",
    "ConfigError",
    "Data",
    "DataError",
    "DigitlabError",
    "Diverged",
    "ImageData",
    "Model",
    "Reproduction",
    "Run",
    "Runs",
    "Sweep",
    "TrackingError",
    "UsageError",
    "compare",
    "compose",
    "dataset",
    "load_data",
    "load_model",
    "model",
    "optimizer",
    "reproduce",
    "runs",
    "scheduler",
    "sweep",
    "train",
]

_ERRORS = ("ConfigError", "DataError", "DigitlabError", "Diverged", "TrackingError", "UsageError")
_REGISTERING = ("dataset", "model", "optimizer", "scheduler")
_MODULES = {  # where each name is made
    **dict.fromkeys(_REGISTERING, "digitlab.config.components.register"),
    **dict.fromkeys(_ERRORS, "digitlab.errors"),
    "Config": "digitlab.config.schema",
    "ImageData": "digitlab.data.image_data",
    "compose": "digitlab.api.composing",
    **dict.fromkeys(("Data", "load_data"), "digitlab.api.arrays"),
    **dict.fromkeys(("Comparison", "compare"), "digitlab.api.comparing"),
    **dict.fromkeys(("Model", "load_model"), "digitlab.api.models"),
    **dict.fromkeys(("Reproduction", "reproduce"), "digitlab.api.reproducing"),
    "train": "digitlab.api.training",
    **dict.fromkeys(("Run", "Runs", "runs"), "digitlab.api.recorded"),
    **dict.fromkeys(("Sweep", "sweep"), "digitlab.api.sweeping"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'digitlab' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _CallableRoom(ModuleType):
    """A room that can be called as the function of the API that has its name.

    Without this `digitlab.runs` would be the function until something imports the room.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.__wrapped__.__doc__  # type: ignore[no-any-return]

    @property
    def __wrapped__(self) -> Any:  # whose signature and docstring Python and notebooks show
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(_MODULES[name]), name)


for _room in ("runs", "sweep"):
    importlib.import_module(f"digitlab.{_room}").__class__ = _CallableRoom
