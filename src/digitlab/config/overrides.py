"""One override as it was typed: how it is read in Hydra's grammar, and what it sets.

The only place that calls Hydra's parser; knows nothing of the files in conf/.
"""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException

from digitlab.config.knobs import knobs
from digitlab.errors import ConfigError
from digitlab.text.addresses import redacted

# Groups that say how a sweep is made, not what a run is.
SWEEP_GROUPS = ("sweep", "executor", "engine")
ALIASES = {"trials": "sweep.trials", "repeats": "sweep.repeats", "workers": "executor.workers"}
# What is asked of Hydra's plugins, and the word that does it here.
INSTEAD = {
    "hydra/launcher": "executor=processes or executor=inprocess",
    "hydra/sweeper": "sweep.search=grid|random|tpe|gp|cmaes",
    "hydra.launcher.n_jobs": "workers=N",
    "hydra.sweeper.n_jobs": "workers=N",
    "hydra.sweeper.max_batch_size": "workers=N",
    "hydra.sweeper.n_trials": "trials=N",
    "hydra.sweeper.sampler": "sweep.search=tpe",
    "hydra.sweeper.direction": "sweep.metric=METRIC",
    "hydra.sweeper.study_name": "sweep.name=NAME",
    "hydra.sweeper.params": "KNOB=VALUE,VALUE",
    "hydra.sweep.dir": "DIGITLAB_HOME=FOLDER in the environment",
    "hydra.run.dir": "DIGITLAB_HOME=FOLDER in the environment",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """What Hydra writes as `interval(low, high)` or `tag(log, interval(low, high))`."""

    low: float
    high: float
    log: bool


class Parser:
    """Reads overrides, each text once. config_loader: of Hydra's, for `glob(*)`."""

    def __init__(self, config_loader: Any = None) -> None:
        self._parser = OverridesParser.create(config_loader=config_loader)
        self._parsed: dict[str, Override] = {}

    def parse(self, text: str) -> Override:
        """Raises ConfigError with what to type instead."""
        if text not in self._parsed:
            if text.startswith("="):
                raise ConfigError([_unreadable(text)])
            try:
                (self._parsed[text],) = self._parser.parse_overrides([text])
            except HydraException:
                if not (as_text := _as_one_text(text)):
                    raise ConfigError([_unreadable(text)]) from None
                (self._parsed[text],) = self._parser.parse_overrides([as_text])
        return self._parsed[text]

    def parse_all(self, texts: Sequence[str]) -> list[Override]:
        """Raises ConfigError for all of them at once."""
        parsed, problems = [], []
        for text in texts:
            try:
                parsed.append(self.parse(text))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        return parsed


def value_of(override: Override) -> Any:
    """What it sets, as Hydra reads it; but a knob that holds text stays as typed: 007, 1e3, true."""
    return typed_value(override) if _is_text(override.key_or_group) else override.value()


def typed_value(override: Override) -> Any:
    """What it sets where text is meant: what Hydra reads as a number or a switch is as it was typed."""
    value = override.value()
    is_text = not isinstance(value, bool | int | float)
    return value if is_text else override.get_value_string().strip()


def quoted(text: str) -> str:
    """The text as a value that Hydra reads as just this text."""
    return QuotedString(text, Quote.single).with_quotes()


def line_of(override: Override) -> str:
    """What the user typed, as it may be shown."""
    return redacted(override.input_line or override.key_or_group)


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


def misplaced(override: Override, *, of_a_sweep: bool) -> str | None:
    """Why it fits neither a run nor, if asked, a sweep's settings."""
    line = line_of(override)
    if override.type == OverrideType.DEL:
        return f"{line}: knobs cannot be removed, only set"
    if override.is_sweep_override() and not of_a_sweep:
        return (
            f"{line} gives several values: quote it if it is one, or run them all with `digitlab sweep`"
        )
    if override.is_sweep_override():
        return f"{line} gives several values: a sweep has one of each setting"
    if problem := about_hydra(override):
        return problem
    if is_about_sweep(override) and not of_a_sweep:
        return f"{line} has no effect on a single run: it is for `digitlab sweep`"
    return None


def about_hydra(override: Override) -> str | None:
    """Why a setting of Hydra's itself is refused; None for any other override."""
    name, line = override.key_or_group, line_of(override)
    if name.partition(".")[0].partition("/")[0] != "hydra":
        return None
    if name == "hydra.job.name":
        return f"{line} has no effect: run_name=NAME names a run, sweep.name=NAME a sweep"
    for theirs, ours in INSTEAD.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return f"{line} has no effect: {ours} does it"
    return f"{line} has no effect: digitlab composes with Hydra, and runs trials itself"


def _is_text(path: str) -> bool:
    known = knobs()
    return path == "sweep.name" or (path in known and known[path].is_text)


def _as_one_text(text: str) -> str | None:
    """Text for a knob that holds text, quoted, where that is plainly meant: `study=größe (1)`."""
    key, _, value = text.partition("=")
    if not value or not _is_text(key.lstrip("+")) or re.search(r"""['"\\,]|\$\{""", value):
        return None
    return f"{key}={quoted(value)}"


def _unreadable(text: str) -> str:
    text = redacted(text)
    key, equals, value = text.partition("=")
    if not equals:
        return f"{text!r} is no override: write knob=value, such as epochs=20"
    whole = f"{key}={quoted(value)}"
    for_a_shell = shlex.quote(whole) if re.search(r'["$`!]|\\\\', whole) else f'"{whole}"'
    as_text = f"if its value is one text, quote it twice: {for_a_shell}"
    if not re.fullmatch(r"[+~]*[\w$@./:-]+", key, re.ASCII):
        reason = f"{key!r} is no name of a knob"
    elif re.search(r"^\s*,|,\s*(,|$)", value):
        reason = "a value is missing beside the comma"
    elif any(value.count(sign) % 2 for sign in "'\""):
        reason = f"a quotation mark has no partner; {as_text}"
    elif any(value.count(one) != value.count(other) for one, other in ("()", "[]", "{}")):
        reason = "a bracket has no partner"
    else:
        reason = as_text
    return f"cannot read the override {text!r}: {reason}"
