"""From conf/ and overrides to a checked Config: the only place that knows Hydra's compose API.

Hydra alone accepts `+anything=1`, out-of-range values and reports the first problem only. Here the
overrides are parsed and laid over the composed YAML one by one, so that every problem is told at once.
A sweep composes the same few choices of groups again and again: each is composed once (0.1 s) and
values are laid over it (under 1 ms).
"""

import copy
import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from digitlab.config import project
from digitlab.config.checking import (
    choices_of,
    flatten,
    knobs,
    nearest,
    set_leaf,
    shown,
    text_knobs,
    to_config,
    to_dict,
    unknown,
)
from digitlab.config.overrides import (
    ALIASES,
    SWEEP_GROUPS,
    Parser,
    line_of,
    misplaced,
    quoted,
    typed_value,
    value_of,
)
from digitlab.config.schema import Config
from digitlab.errors import ConfigError
from digitlab.text import yaml_text

Values = dict[str, Any]

NO_PRESET = "experiment=null"  # which Hydra itself does not understand


@dataclasses.dataclass(frozen=True)
class _Sorted:
    """Overrides by what they do; `problems` holds those that do nothing sensible."""

    groups: tuple[str, ...]
    values: list[Override]
    problems: list[str]


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
        files = made.files(chosen.groups)
    set_by: dict[str, str] = {}
    for file, package in files:
        values = yaml_text.read(project.home() / file)
        values.pop("defaults", None)
        set_by |= dict.fromkeys(flatten(values, f"{package}." if package else ""), file)
    set_by |= {o.key_or_group: f"override {line_of(o)}" for o in chosen.values}
    flat = flatten(to_dict(config))
    return {path: (value, set_by.get(path, "")) for path, value in flat.items()}


@contextmanager
def composer() -> Iterator["Composer"]:
    """Composes any number of configurations from conf/ as it is now."""
    if GlobalHydra.instance().is_initialized():  # within an application of Hydra's
        yield Composer()
        return
    with initialize_config_dir(str(project.conf()), version_base="1.3"):
        SourcesRegistry.instance().register(_ConfFolder)
        GlobalHydra.instance().clear()
        folder = f"{_ConfFolder.scheme()}://{project.conf()}"
        Hydra.create_main_hydra2("digitlab", create_config_search_path(folder))
        yield Composer()


class _ConfFolder(FileConfigSource):
    """conf/ for Hydra, as our own YAML reads it."""

    @staticmethod
    def scheme() -> str:
        return "digitlab"

    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.path, self._normalize_file_name(config_path))
        values = yaml_text.read(file, text_knobs())
        if isinstance(listed := values.get("defaults"), list):
            values["defaults"] = [entry for entry in listed if not _is_about_plugins(entry)]
        try:
            header = self._get_header_dict(yaml_text.text_of(file)[:512])
        except ValueError as error:
            raise ConfigError([f"{file}: {error}"]) from None
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=OmegaConf.create(values),
            header=header,
        )


def _is_about_plugins(default: Any) -> bool:
    """`override hydra/launcher: digitlab`, as every conf/ had it that an earlier digitlab made."""
    return isinstance(default, dict) and all(str(key).startswith("override hydra/") for key in default)


class Composer:
    """Remembers what it has read: a file that is edited meanwhile changes nothing."""

    def __init__(self) -> None:
        self._groups = project.groups()
        self._bases: dict[tuple[str, ...], Values] = {}
        parser = Parser(GlobalHydra.instance().config_loader())
        self.parse, self.parse_all = parser.parse, parser.parse_all

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
            if not set_leaf(values, path, value_of(override)):
                chosen.problems.append(f"unknown setting {path}")
        if chosen.problems:
            raise ConfigError(chosen.problems)
        return values

    def value(self, knob: str, text: str) -> Any:
        """What a text sets, typed as the value of a knob."""
        return value_of(self.parse(f"{knob}={text}"))

    def is_group(self, name: str) -> bool:
        return name in self._groups

    def base(self, groups: tuple[str, ...]) -> Values:
        """The YAML files of the chosen groups, laid over one another by Hydra; not to be changed."""
        if groups not in self._bases:
            try:
                composed = hydra_compose("config", overrides=_for_hydra(groups))
                values = OmegaConf.to_container(composed, resolve=False)
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError([f"conf/ does not compose: {_one_line(error)}"]) from None
            assert isinstance(values, dict)
            self._check_packages(groups, values)
            self._bases[groups] = {str(key): value for key, value in values.items()}
        return self._bases[groups]

    def files(self, groups: Sequence[str]) -> list[tuple[str, str | None]]:
        """The files that these choices are composed of, each with the group that it is laid into."""
        loader: Any = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list("config", _for_hydra(groups), RunMode.RUN).defaults
        return [
            (f"conf/{default.config_path}.yaml", default.package)
            for default in found
            if default.config_path and not default.config_path.startswith("hydra")
        ]

    def _check_packages(self, groups: Sequence[str], composed: Mapping[Any, Any]) -> None:
        """A preset sets knobs of the whole: left in a group of its own, they would set nothing."""
        names = {field.name for field in dataclasses.fields(Config)}
        strays = composed.keys() & self._groups.keys() - names - {*SWEEP_GROUPS}
        if strays:
            files = [file for file, package in self.files(groups) if package in strays]
            raise ConfigError([f"{f} must begin with the line `# @package _global_`" for f in files])

    def lay_over(self, base: Values, overrides: Sequence[Override]) -> tuple[Values, list[str]]:
        """A copy of `base` with values set, and what is wrong with the overrides."""
        values, problems = copy.deepcopy(base), []
        choices = choices_of(base)
        known = knobs(choices)
        for override in overrides:
            path, value = override.key_or_group, value_of(override)
            group = path.partition(".")[0]
            is_variant = path.endswith(".name") and group in ("model", "optimizer", "scheduler")
            if is_variant or (path not in known and group not in base):
                problems.append(unknown(path, known, choices))
            elif isinstance(value, str) and "${" in value:
                problems.append(f"{path} must be a plain value, got the interpolation {shown(value)}")
            elif not set_leaf(values, path, value):
                problems.append(f"unknown knob {path}: {path.rpartition('.')[0]} is no group of knobs")
        return _resolve(values), problems

    def sort(self, parsed: Sequence[Override], *, of_a_sweep: bool = False) -> _Sorted:
        """Choices of groups, values, and what fits neither a run nor (if asked) a sweep's settings."""
        groups: list[str] = []
        result = _Sorted((), [], [])
        for override in parsed:
            if problem := misplaced(override, of_a_sweep=of_a_sweep):
                result.problems.append(problem)
                continue
            name = override.key_or_group
            if self.is_group(name) and not isinstance(override.value(), dict):
                value = typed_value(override)
                choice = "null" if value is None else str(value)
                if choice in self._groups[name] or f"{name}={choice}" == NO_PRESET:
                    groups.append(f"{name}={choice}")
                else:
                    result.problems.append(_unknown_choice(name, choice, self._groups[name]))
            elif "." not in name and (group := _misspelt(name, [*self._groups])):
                result.problems.append(f"unknown group {name}; did you mean {group}?")
            else:
                result.values.append(override)
        return dataclasses.replace(result, groups=tuple(groups))


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


def _for_hydra(groups: Sequence[str]) -> list[str]:
    """Choices of groups as Hydra understands them, whatever the names of the files."""
    listed = project.default_choices()
    return [
        f"~{name}"
        if f"{name}={choice}" == NO_PRESET
        else f"{'' if name in listed else '+'}{name}={quoted(choice)}"
        for name, _, choice in (group.partition("=") for group in groups)
    ]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _misspelt(name: str, available: list[str]) -> str | None:
    if name in knobs() or nearest(name, knobs()):
        return None
    close = difflib.get_close_matches(name, available, n=1)
    return close[0] if close else None


def _unknown_choice(group: str, choice: str, options: list[str]) -> str:
    close = difflib.get_close_matches(choice, options, n=1)
    hint = f"; did you mean {group}={close[0]}?" if close else ""
    return f"{group} must be one of {', '.join(options)}, got {choice}{hint}"
