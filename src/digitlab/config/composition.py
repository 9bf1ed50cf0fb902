"""From conf/ and overrides to a checked Config.

Hydra alone accepts `+anything=1`, out-of-range values and reports the first problem only. Here the
overrides are parsed and laid over the composed YAML one by one, so that all problems are reported at
once. A sweep composes the same few choices of groups again and again: each is composed once (0.1 s) and
values are laid over it (under 1 ms).
"""

import copy
import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from digitlab.config import project
from digitlab.config.checking import (
    choices_of,
    flatten,
    set_leaf,
    shown,
    to_config,
    to_dict,
    unknown,
)
from digitlab.config.components import lookup
from digitlab.config.conf_folder import NO_PRESET, Conf, Values, one_line, opened_conf
from digitlab.config.knobs import knobs, nearest
from digitlab.config.overrides import (
    ALIASES,
    SWEEP_GROUPS,
    Parser,
    line_of,
    misplaced,
    typed_value,
    value_of,
)
from digitlab.config.schema import BUILT_IN, Config
from digitlab.errors import ConfigError
from digitlab.text import yaml_text


@dataclasses.dataclass(frozen=True)
class _Sorted:
    """Overrides by what they set; problems: what is wrong with the others."""

    groups: tuple[str, ...]
    values: list[Override]
    problems: list[str]


def compose(overrides: Sequence[str]) -> Config:
    """The checked configuration of conf/config.yaml under `overrides` (Hydra's grammar).

    Raises:
        ConfigError: with every problem of the overrides and the files at once.
    """
    with composer() as opened:
        return opened.compose(overrides)


def sources(overrides: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """For each knob of the composition its value and the file or override that set it."""
    with composer() as opened:
        config = opened.compose(overrides)
        chosen = opened.sort([opened.parse(text) for text in overrides])
        files = opened.files(chosen.groups)
    set_by = {
        f"{group}.{name}": component.file
        for group, component in lookup.chosen(to_dict(config)).items()
        for name in component.values
    }
    for file, package in files:
        if not file.exists():  # a component without a file of conf/
            continue
        values = yaml_text.read(file)
        values.pop("defaults", None)
        paths = flatten(values, f"{package}." if package else "")
        set_by |= dict.fromkeys(paths, project.shown_conf_file(file))
    set_by |= {o.key_or_group: f"override {line_of(o)}" for o in chosen.values}
    flat = flatten(to_dict(config))
    return {path: (value, set_by.get(path, "")) for path, value in flat.items()}


@contextmanager
def composer() -> Iterator["Composer"]:
    """Composes any number of configurations from conf/ as it is now."""
    with opened_conf() as conf:
        yield Composer(conf)


class Composer:
    """Remembers what it has read: a file that is edited meanwhile changes nothing."""

    def __init__(self, conf: Conf) -> None:
        self.base, self.files, self._groups = conf.base, conf.files, conf.groups
        parser = Parser(conf.loader)
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
        """The value that a text means for a knob."""
        return value_of(self.parse(f"{knob}={text}"))

    def is_group(self, name: str) -> bool:
        return name in self._groups

    def lay_over(self, base: Values, overrides: Sequence[Override]) -> tuple[Values, list[str]]:
        """A copy of `base` with values set, and what is wrong with the overrides."""
        values, problems = copy.deepcopy(base), []
        choices = choices_of(base)
        known = knobs(choices)
        for override in overrides:
            path, value = override.key_or_group, value_of(override)
            group = path.partition(".")[0]
            is_variant = path == f"{group}.name" and group in BUILT_IN
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
        raise ConfigError([f"conf/ does not resolve: {one_line(error)}"]) from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _has_interpolation(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_interpolation, value.values()))
    if isinstance(value, list):
        return any(map(_has_interpolation, value))
    return isinstance(value, str) and "${" in value


def _misspelt(name: str, available: list[str]) -> str | None:
    if name in knobs() or nearest(name, knobs()):
        return None
    close = difflib.get_close_matches(name, available, n=1)
    return close[0] if close else None


def _unknown_choice(group: str, choice: str, options: list[str]) -> str:
    close = difflib.get_close_matches(choice, options, n=1)
    hint = f"; did you mean {group}={close[0]}?" if close else ""
    missing = "".join(f"; {p}" for p in lookup.everything().problems) if group in BUILT_IN else ""
    return f"{group} must be one of {', '.join(options)}, got {choice}{hint}{missing}"
