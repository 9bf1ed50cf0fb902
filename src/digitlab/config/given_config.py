"""A configuration that is given, in a file or a record, and knobs set in it: no conf/, no groups."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from digitlab.config.checking import (
    choices_of,
    flatten,
    recorded_config,
    set_leaf,
    shown,
    to_dict,
    unknown,
)
from digitlab.config.knobs import knobs, text_knobs
from digitlab.config.overrides import Parser, line_of, misplaced, value_of
from digitlab.config.schema import Config
from digitlab.errors import ConfigError, UsageError
from digitlab.text import yaml_text

PLACES = ("tracking.uri", "data.root")  # where things lie on the machine that wrote the file


def read_config(file: Path, overrides: Sequence[str], say: Callable[[str], None]) -> Config:
    """The checked configuration in a file like config.yaml, the artifact of a run, under overrides.

    Places are left to this machine, and to the overrides: the file may come from another one.

    Raises:
        UsageError: it is no whole one. ConfigError: every problem of it, or of the overrides.
    """
    values = yaml_text.read(file, text_knobs())
    places = {path: value for path, value in flatten(values).items() if path in PLACES}
    for path in places:
        set_leaf(values, path, None)
    if missing := [f.name for f in dataclasses.fields(Config) if f.name not in values]:
        raise UsageError(
            f"{file} is no whole configuration, it lacks {', '.join(missing)}: "
            "`digitlab config KNOB=VALUE > FILE` writes one; a preset belongs to conf/experiment/"
        )
    problems = _interpolations(values)
    try:
        values = to_dict(recorded_config(values))
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError([f"{file}: {problem}" for problem in problems])
    if given := [path for path, value in places.items() if value is not None]:
        say(
            f"not taken from {file}: {' and '.join(given)}, since places are another machine's; "
            "to use them, give them on the command line"
        )
    for path, value in knob_values(overrides, values).items():
        set_leaf(values, path, value)
    return recorded_config(values)


def knob_values(overrides: Sequence[str], base: Mapping[str, Any]) -> dict[str, Any]:
    """What overrides set in `base`: single knobs by path.

    Raises:
        ConfigError: every override that is something else.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    choices = choices_of(base)
    known = knobs(choices)
    for override in Parser().parse_all(overrides):
        path = override.key_or_group
        if isinstance(base.get(path), dict):
            line = line_of(override)
            problems.append(
                f"{line}: a recorded group cannot be chosen anew, only its knobs can be set"
            )
        elif problem := misplaced(override, of_a_sweep=False):
            problems.append(problem)
        elif path not in known:
            problems.append(unknown(path, known, choices))
        else:
            values[path] = value_of(override)
    problems += _interpolations(values)
    if problems:
        raise ConfigError(problems)
    return values


def _interpolations(values: Mapping[str, Any]) -> list[str]:
    """What is refused because a reader might look it up."""
    return [
        f"{path} must be a plain value, got the interpolation {shown(value)}"
        for path, value in flatten(values).items()
        if isinstance(value, str) and "${" in value
    ]
