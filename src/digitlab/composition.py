"""From conf/ and overrides to a checked Config: the only place that knows Hydra's compose API.

Hydra alone accepts `+anything=1`, out-of-range values and reports the first problem only. Here the
overrides are parsed and laid over the composed YAML one by one, so that every problem is told at once.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from digitlab import project
from digitlab.checking import flatten, knobs, nearest, to_config, to_dict, unknown
from digitlab.config import Config
from digitlab.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class _Sorted:
    """Overrides by what they do; `problems` holds those that do nothing sensible."""

    groups: list[str]
    values: list[Override]
    problems: list[str]


def compose(overrides: Sequence[str]) -> Config:
    """The checked configuration of conf/config.yaml under `overrides` (Hydra's grammar).

    Raises:
        ConfigError: with every problem of the overrides and the files at once.
    """
    with initialize_config_dir(str(project.conf()), version_base="1.3"):
        return _compose(_parse(overrides))


def compose_trials(overrides: Sequence[str]) -> list[list[str]]:
    """The override lists that `--multirun` would run, each composed and checked.

    Raises:
        ConfigError: with every problem of every trial.
    """
    batches = BasicSweeper.split_arguments(_parse(overrides), max_batch_size=None)
    trials = [list(trial) for batch in batches for trial in batch]
    problems: dict[str, None] = {}
    with initialize_config_dir(str(project.conf()), version_base="1.3"):
        for trial in trials:
            try:
                _compose([o for o in _parse(trial) if not _is_hydra_setting(o)])
            except ConfigError as error:
                problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(list(problems))
    return trials


def sources(overrides: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """For each knob of the composition its value and the file or override that set it."""
    with initialize_config_dir(str(project.conf()), version_base="1.3"):
        parsed = _parse(overrides)
        config = _compose(parsed)
        chosen = _sort(parsed)
        defaults = _loader().compute_defaults_list("config", chosen.groups, RunMode.RUN).defaults
    set_by: dict[str, str] = {}
    for default in defaults:
        if default.config_path is None or default.config_path.startswith("hydra"):
            continue
        file = f"conf/{default.config_path}.yaml"
        values = yaml.safe_load((project.home() / file).read_text()) or {}
        values.pop("defaults", None)
        prefix = f"{default.package}." if default.package else ""
        set_by |= dict.fromkeys(flatten(values, prefix), file)
    set_by |= {o.key_or_group: f"override {_line(o)}" for o in chosen.values}
    flat = flatten(to_dict(config))
    return {path: (value, set_by.get(path, "")) for path, value in flat.items()}


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser, parsed, problems = OverridesParser.create(), [], []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            problems.append(_unreadable(text, str(error).splitlines()[0]))
    if problems:
        raise ConfigError(problems)
    return parsed


def _unreadable(text: str, detail: str) -> str:
    if "=" not in text:
        return f"{text!r} is no override: write knob=value, such as epochs=20"
    if "'" in text or '"' in text:
        return f"cannot read the override {text!r}: put quotes around its whole value ({detail})"
    return f"cannot read the override {text!r}: {detail} (expected knob=value)"


def _compose(parsed: Sequence[Override]) -> Config:
    chosen = _sort(parsed)
    composed = _compose_groups(chosen.groups)
    choices: dict[str, str | None] = {
        group: OmegaConf.select(composed, f"{group}.name") for group in map(str, composed)
    }
    known, problems = knobs(choices), list(chosen.problems)
    for override in chosen.values:
        path, value = override.key_or_group, override.value()
        if path in known and known[path].is_text and value is not None:
            value = _line(override).partition("=")[2].strip("'\"")  # 007 stays 007
        group = path.partition(".")[0]
        is_variant = path.endswith(".name") and group in ("model", "optimizer", "scheduler")
        if is_variant or (path not in known and group not in composed):
            problems.append(unknown(path, known, choices))
            continue
        if isinstance(value, str) and "${" in value:
            problems.append(f"{path} must be a plain value, got the interpolation {value!r}")
            continue
        try:
            OmegaConf.update(composed, path, value, merge=True, force_add=True)
        except (OmegaConfBaseException, ValueError, TypeError):
            problems.append(f"unknown knob {path}: {path.rpartition('.')[0]} is no group of knobs")
    try:
        config = to_config(_plain(composed))
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return config


def _compose_groups(group_overrides: list[str]) -> DictConfig:
    """The YAML files of the chosen groups, laid over one another by Hydra."""
    try:
        composed = hydra_compose("config", overrides=group_overrides)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError([f"conf/ does not compose: {' '.join(str(error).split())}"]) from None
    OmegaConf.set_struct(composed, False)
    return composed


def _plain(composed: DictConfig) -> dict[str, Any]:
    try:
        values = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([f"conf/ does not resolve: {' '.join(str(error).split())}"]) from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _sort(parsed: Sequence[Override]) -> _Sorted:
    available = project.groups()
    result = _Sorted([], [], [])
    for override in parsed:
        name, line = override.key_or_group, _line(override)
        if override.type == OverrideType.DEL:
            result.problems.append(f"{line}: knobs cannot be removed, only set")
        elif override.is_sweep_override():
            result.problems.append(
                f"{line} gives several values: quote it if it is one, "
                "or run them all with `digitlab train --multirun`"
            )
        elif _is_hydra_setting(override):
            result.problems.append(f"{line} has no effect on a single run: hydra.* is for --multirun")
        elif name in available and not isinstance(override.value(), dict):
            choice = "null" if override.value() is None else str(override.value())
            if choice in available[name] or (name, choice) == ("experiment", "null"):
                result.groups.append(f"{name}={choice}")
            else:
                result.problems.append(_unknown_choice(name, choice, available[name]))
        elif "." not in name and (group := _misspelt(name, [*available])):
            result.problems.append(f"unknown group {name}; did you mean {group}?")
        else:
            result.values.append(override)
    return result


def _line(override: Override) -> str:
    """What the user typed."""
    return override.input_line or override.key_or_group


def _is_hydra_setting(override: Override) -> bool:
    return override.key_or_group.partition(".")[0].partition("/")[0] == "hydra"


def _misspelt(name: str, available: list[str]) -> str | None:
    if name in knobs() or nearest(name, knobs()):
        return None
    close = difflib.get_close_matches(name, available, n=1)
    return close[0] if close else None


def _unknown_choice(group: str, choice: str, options: list[str]) -> str:
    close = difflib.get_close_matches(choice, options, n=1)
    hint = f"; did you mean {group}={close[0]}?" if close else ""
    return f"{group} must be one of {', '.join(options)}, got {choice}{hint}"
