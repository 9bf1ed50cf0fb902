"""What makes two trials, or two sweeps, the same: fingerprints and keys, on this machine as it is.

Knows no grid and no search.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from digitlab.config import project
from digitlab.config.checking import recorded_config
from digitlab.config.data_schema import BuiltInDataConfig, DataConfig
from digitlab.config.fingerprint import fingerprint
from digitlab.config.schema import Config, of_sizes
from digitlab.data.sources import known_digests, sizes_of, source_of
from digitlab.errors import ConfigError
from digitlab.sweep.manifest import Manifest
from digitlab.sweep.settings import ClusterSettings, ExecutorSettings, to_values

# Of Nvidia's driver, on WSL, of AMD's: without any there is no GPU.
GPU_DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def with_key(manifest: Manifest) -> Manifest:
    """The key covers what would be run and where to; not the order, the workers, or the name."""
    settings = to_values(manifest.settings)["sweep"]
    decisive = {k: settings[k] for k in ("search", "trials", "repeats", "metric", "pruner", "seed")}
    if settings["target"] is not None:  # without one the keys of earlier versions stay valid
        decisive["target"] = settings["target"]
    if manifest.is_search:
        configs = [recorded_config(base.values) for base in manifest.bases]
        prints = [trial_fingerprint(config, manifest.settings.executor) for config in configs]
    else:
        prints = sorted(trial.fingerprint for trial in manifest.trials)
        if settings["target"] is None:
            decisive.pop("metric")  # what a grid is ranked by does not change what it runs
    store = project.portable_uri(manifest.tracking_uri, project.mlruns())
    parts = [decisive, prints, manifest.axes, manifest.study, store]
    text = json.dumps(parts, sort_keys=True, default=str)
    return dataclasses.replace(manifest, key=hashlib.sha256(text.encode()).hexdigest())


def trial_fingerprint(config: Config, executor: ExecutorSettings) -> str:
    """With the data unknown (not downloaded yet) it equals that of no run."""
    digests = _digests(source_of(config.data))
    return fingerprint(config, device=_device(config, executor), data=digests or {})


def check_sizes(config: Config) -> None:
    """Raises ConfigError for knobs that do not fit the number of images in data of a user's own."""
    if isinstance(config.data, BuiltInDataConfig):
        return  # the schema knows how many there are
    if problems := of_sizes(config, _num_train(source_of(config.data))):
        raise ConfigError(problems)


def forget_data() -> None:
    """What was read of data, which may change between two commands of one process."""
    _digests.cache_clear()
    _num_train.cache_clear()


@functools.cache
def _digests(source: DataConfig) -> dict[str, str] | None:
    return known_digests(source)


@functools.cache
def _num_train(source: DataConfig) -> int:
    return sizes_of(source).num_images


def shared_device(configs: Sequence[Config], executor: ExecutorSettings) -> str:
    """`cuda` if any of them trains on a GPU: workers are then dealt out by GPUs."""
    return "cuda" if any(_device(config, executor) == "cuda" for config in configs) else "cpu"


def placed(config: Config, executor: ExecutorSettings) -> Config:
    """With the device that it will have on another machine: what this one has says nothing of that.

    Raises:
        ConfigError: a GPU is asked for, and the executor asks for none.
    """
    if not isinstance(executor, ClusterSettings):
        return config
    if config.device == "cuda" and not executor.gpus:
        raise ConfigError(["device=cuda needs executor.gpus of at least 1, got 0"])
    may_use_gpu = config.device != "cpu" and config.arithmetic == "native"
    return dataclasses.replace(config, device="cuda" if executor.gpus and may_use_gpu else "cpu")


def _device(config: Config, executor: ExecutorSettings) -> str:
    """What `device` means; torch (2 s) is not asked where the answer must be the CPU."""
    if isinstance(executor, ClusterSettings):
        return placed(config, executor).device
    has_driver = any(Path(name).exists() for name in GPU_DRIVERS)
    if config.device == "cpu" or (config.device == "auto" and not has_driver):
        return "cpu"
    from digitlab.training.devices import resolved_device

    return resolved_device(config.device, config.arithmetic)
