"""From conf/ and overrides to a checked Config: the only place that knows Hydra's compose API.

Hydra alone accepts `+anything=1`, out-of-range values and reports the first problem only. Here the
overrides are parsed and laid over the composed YAML one by one, so that every problem is told at once.
A sweep composes the same few choices of groups again and again: each is composed once (0.1 s) and
values are laid over it (under 1 ms).
"""

import copy
import dataclasses
import difflib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from digitlab import project
from digitlab.addresses import redacted
from digitlab.checking import flatten, knobs, nearest, set_leaf, to_config, to_dict, unknown
from digitlab.config import Config
from digitlab.errors import ConfigError

# Groups that say how a sweep is made, not what a run is.
SWEEP_GROUPS = ("sweep", "executor", "engine")
ALIASES = {"trials": "sweep.trials", "repeats": "sweep.repeats", "workers": "executor.workers"}

Values = dict[str, Any]

NO_PRESET = "experiment=null"  # which Hydra itself does not understand


@dataclasses.dataclass(frozen=True)
class _Sorted:
    """Overrides by what they do; `problems` holds those that do nothing sensible."""

    groups: tuple[str, ...]
    values: list[Override]
    problems: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """What Hydra writes as `interval(low, high)` or `tag(log, interval(low, high))`."""

    low: float
    high: float
    log: bool


def compose(overrides: Sequence[str]) -> Config:
    """The checked configuration of conf/config.yaml under `overrides` (Hydra's grammar).

    Raises:
        ConfigError: with every problem of the overrides and the files at once.
    """
    with composer() as made:
        return made.compose(overrides)


def sources(overrides: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """For each knob of the composition its value and the file or override that set it."""
    with composer() as made:
        config = made.compose(overrides)
        chosen = made.sort([made.parse(text) for text in overrides])
        loader: Any = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list("config", list(chosen.groups), RunMode.RUN).defaults
    set_by: dict[str, str] = {}
    for default in defaults:
        if default.config_path is None or default.config_path.startswith("hydra"):
            continue
        file = f"conf/{default.config_path}.yaml"
        values = yaml.safe_load((project.home() / file).read_text()) or {}
        values.pop("defaults", None)
        prefix = f"{default.package}." if default.package else ""
        set_by |= dict.fromkeys(flatten(values, prefix), file)
    set_by |= {o.key_or_group: f"override {redacted(_line(o))}" for o in chosen.values}
    flat = flatten(to_dict(config))
    return {path: (value, set_by.get(path, "")) for path, value in flat.items()}


def multirun(overrides: Sequence[str], task: Callable[[Values], None]) -> Any:
    """Hand over to the sweeper and the launcher that conf/ or `hydra/...` overrides choose.

    What Hydra's own multirun does, but for one thing: only hydra.* is composed here. Hydra would
    compose the defaults under the overrides that do not vary, and refuse `model=cnn,mlp model.width=3`.
    """
    with composer() as made:
        parsed = made.parse_all(overrides)
        about_hydra = [o.input_line or "" for o in parsed if is_about_hydra(o)]
        folder = project.mlruns() / "hydra" / time.strftime("%Y%m%d-%H%M%S")
        settings = [
            f"hydra.sweep.dir={folder}",
            "hydra.sweep.subdir=${hydra:job.num}",
            "hydra/hydra_logging=disabled",
            "hydra/job_logging=disabled",
            "hydra.output_subdir=null",
        ]
        hydra: Any = GlobalHydra.instance().hydra
        try:
            config = hydra.compose_config(
                config_name="config",
                overrides=[*settings, *about_hydra],
                run_mode=RunMode.MULTIRUN,
                with_log_configuration=False,
            )
            sweeper = Plugins.instance().instantiate_sweeper(
                hydra_context=HydraContext(
                    config_loader=hydra.config_loader, callbacks=Callbacks(config)
                ),
                task_function=lambda composed: task(_without_sweep(composed)),
                config=config,
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError([_one_line(error)]) from None
        return sweeper.sweep([o.input_line or "" for o in parsed if not is_about_hydra(o)])


def _without_sweep(composed: Any) -> Values:
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key not in SWEEP_GROUPS}


@contextmanager
def composer() -> Iterator["Composer"]:
    """Composes any number of configurations from conf/ as it is now."""
    if GlobalHydra.instance().is_initialized():  # within `multirun`, or an application of Hydra's
        yield Composer()
        return
    try:
        with initialize_config_dir(str(project.conf()), version_base="1.3"):
            yield Composer()
    except UnicodeDecodeError:
        files = list(_files_that_are_no_text())
        if not files:
            raise
        raise ConfigError([f"{file} is no text in UTF-8" for file in files]) from None


def _files_that_are_no_text() -> Iterator[Path]:
    for file in sorted(project.conf().rglob("*.yaml")):
        try:
            file.read_text("utf-8")
        except UnicodeDecodeError:
            yield file


class Composer:
    """Remembers what it has read: a file that is edited meanwhile changes nothing."""

    def __init__(self) -> None:
        self._groups = project.groups()
        self._bases: dict[tuple[str, ...], Values] = {}
        self._parsed: dict[str, Override] = {}
        self._parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())

    def compose(self, overrides: Sequence[str]) -> Config:
        """One configuration; ConfigError lists every problem of it."""
        chosen = self.sort(self.parse_all(overrides))
        values, problems = self.lay_over(self.base(chosen.groups), chosen.values)
        try:
            config = to_config({k: v for k, v in values.items() if k not in SWEEP_GROUPS})
        except ConfigError as error:
            problems += error.problems
        if problems := chosen.problems + problems:
            raise ConfigError(problems)
        return config

    def compose_sweep(self, overrides: Sequence[str]) -> Values:
        """The groups `sweep` and `executor` under overrides that concern them; not checked yet."""
        chosen = self.sort(self.parse_all(overrides), of_a_sweep=True)
        base = self.base(chosen.groups)
        values = {group: copy.deepcopy(base[group]) for group in SWEEP_GROUPS}
        for override in chosen.values:
            path = ALIASES.get(override.key_or_group, override.key_or_group)
            if not set_leaf(values, path, override.value()):
                chosen.problems.append(f"unknown setting {path}")
        if chosen.problems:
            raise ConfigError(chosen.problems)
        return values

    def parse(self, text: str) -> Override:
        if text not in self._parsed:
            (self._parsed[text],) = self._parser.parse_overrides([text])
        return self._parsed[text]

    def parse_all(self, overrides: Sequence[str]) -> list[Override]:
        parsed, problems = [], []
        for text in overrides:
            try:
                parsed.append(self.parse(text))
            except HydraException as error:
                problems.append(_unreadable(text, str(error).splitlines()[0]))
        if problems:
            raise ConfigError(problems)
        return parsed

    def is_group(self, name: str) -> bool:
        return name in self._groups

    def base(self, groups: tuple[str, ...]) -> Values:
        """The YAML files of the chosen groups, laid over one another by Hydra; not to be changed."""
        if groups not in self._bases:
            try:
                named = [("~experiment" if group == NO_PRESET else group) for group in groups]
                composed = hydra_compose("config", overrides=named)
                values = OmegaConf.to_container(composed, resolve=False)
            except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
                raise ConfigError([f"conf/ does not compose: {_one_line(error)}"]) from None
            assert isinstance(values, dict)
            self._bases[groups] = {str(key): value for key, value in values.items()}
        return self._bases[groups]

    def lay_over(self, base: Values, overrides: Sequence[Override]) -> tuple[Values, list[str]]:
        """A copy of `base` with values set, and what is wrong with the overrides."""
        values, problems = copy.deepcopy(base), []
        names = {group: part.get("name") for group, part in base.items() if isinstance(part, dict)}
        choices = {group: name if isinstance(name, str) else None for group, name in names.items()}
        known = knobs(choices)
        for override in overrides:
            path, value = override.key_or_group, override.value()
            if path in known and known[path].is_text and value is not None:
                value = _line(override).partition("=")[2].strip("'\"")  # 007 stays 007
            group = path.partition(".")[0]
            is_variant = path.endswith(".name") and group in ("model", "optimizer", "scheduler")
            if is_variant or (path not in known and group not in base):
                problems.append(unknown(path, known, choices))
            elif isinstance(value, str) and "${" in value:
                problems.append(f"{path} must be a plain value, got the interpolation {value!r}")
            elif not set_leaf(values, path, value):
                problems.append(f"unknown knob {path}: {path.rpartition('.')[0]} is no group of knobs")
        return _resolve(values), problems

    def sort(self, parsed: Sequence[Override], *, of_a_sweep: bool = False) -> _Sorted:
        """Choices of groups, values, and what fits neither a run nor (if asked) a sweep's settings."""
        groups: list[str] = []
        result = _Sorted((), [], [])
        for override in parsed:
            if problem := _misplaced(override, of_a_sweep):
                result.problems.append(problem)
                continue
            name = override.key_or_group
            if self.is_group(name) and not isinstance(override.value(), dict):
                choice = "null" if override.value() is None else str(override.value())
                if choice in self._groups[name] or f"{name}={choice}" == NO_PRESET:
                    groups.append(f"{name}={choice}")
                else:
                    result.problems.append(_unknown_choice(name, choice, self._groups[name]))
            elif "." not in name and (group := _misspelt(name, [*self._groups])):
                result.problems.append(f"unknown group {name}; did you mean {group}?")
            else:
                result.values.append(override)
        return dataclasses.replace(result, groups=tuple(groups))


def knob_values(overrides: Sequence[str], base: Values) -> dict[str, Any]:
    """What overrides set in a configuration that is given: single knobs by path, no groups, no conf/.

    Raises:
        ConfigError: every override that is something else.
    """
    parser = OverridesParser.create()
    found: dict[str, Any] = {}
    problems: list[str] = []
    known = knobs(
        {g: part["name"] for g, part in base.items() if isinstance(part, dict) and "name" in part}
    )
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            problems.append(_unreadable(text, _one_line(error)))
            continue
        path = override.key_or_group
        if isinstance(base.get(path), dict):
            problems.append(
                f"{text}: a recorded group cannot be chosen anew, only its knobs can be set"
            )
        elif problem := _misplaced(override, of_a_sweep=False):
            problems.append(problem)
        elif path not in known:
            problems.append(unknown(path, known, {}))
        else:
            found[path] = override.value()
    if problems:
        raise ConfigError(problems)
    return found


def swept(override: Override) -> list[str] | Span | None:
    """The values that an override sweeps, as they would be typed alone; None if it has one only."""
    if not override.is_sweep_override():
        return None
    if override.is_interval_sweep():
        interval: Any = override.value()
        return Span(interval.start, interval.end, "log" in interval.tags)
    return list(override.sweep_string_iterator())


def is_about_sweep(override: Override) -> bool:
    """Whether it sets how a sweep is made: `sweep=NAME`, `sweep.search=tpe`, `workers=4`."""
    name = override.key_or_group
    return name in ALIASES or name.partition(".")[0] in SWEEP_GROUPS


def is_about_hydra(override: Override) -> bool:
    return override.key_or_group.partition(".")[0].partition("/")[0] == "hydra"


def _misplaced(override: Override, of_a_sweep: bool) -> str | None:
    line = _line(override)
    if override.type == OverrideType.DEL:
        return f"{line}: knobs cannot be removed, only set"
    if override.is_sweep_override() and not of_a_sweep:
        return (
            f"{line} gives several values: quote it if it is one, or run them all with `digitlab sweep`"
        )
    if override.is_sweep_override():
        return f"{line} gives several values: a sweep has one of each setting"
    if is_about_hydra(override):
        return f"{line} has no effect on a single run: hydra.* is for `digitlab sweep`"
    if is_about_sweep(override) and not of_a_sweep:
        return f"{line} has no effect on a single run: it is for `digitlab sweep`"
    return None


def _resolve(values: Values) -> Values:
    """Interpolations between the files of conf/, which follow overrides."""
    if not _has_interpolation(values):
        return values
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([f"conf/ does not resolve: {_one_line(error)}"]) from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _has_interpolation(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_interpolation, value.values()))
    if isinstance(value, list):
        return any(map(_has_interpolation, value))
    return isinstance(value, str) and "${" in value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _unreadable(text: str, detail: str) -> str:
    if "=" not in text:
        return f"{text!r} is no override: write knob=value, such as epochs=20"
    if "'" in text or '"' in text:
        return f"cannot read the override {text!r}: put quotes around its whole value ({detail})"
    return f"cannot read the override {text!r}: {detail} (expected knob=value)"


def _line(override: Override) -> str:
    """What the user typed."""
    return override.input_line or override.key_or_group


def _misspelt(name: str, available: list[str]) -> str | None:
    if name in knobs() or nearest(name, knobs()):
        return None
    close = difflib.get_close_matches(name, available, n=1)
    return close[0] if close else None


def _unknown_choice(group: str, choice: str, options: list[str]) -> str:
    close = difflib.get_close_matches(choice, options, n=1)
    hint = f"; did you mean {group}={close[0]}?" if close else ""
    return f"{group} must be one of {', '.join(options)}, got {choice}{hint}"
