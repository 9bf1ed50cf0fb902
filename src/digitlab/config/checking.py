"""Checking plain values against the schema, with sentences that name what is wrong and what is meant.

Knows neither torch nor Hydra nor MLflow.
"""

import copy
import dataclasses
import functools
import json
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import Field, TypeAdapter, ValidationError

from digitlab.config import project
from digitlab.config.components import lookup
from digitlab.config.data_schema import DataConfig, PlacedDataConfig
from digitlab.config.knobs import Knob, knobs, nearest, variants
from digitlab.config.schema import BUILT_IN, Config, contradictions
from digitlab.errors import ConfigError
from digitlab.text import addresses

_CONFIG = TypeAdapter(Config)
# Knobs that early records lack, each with what it was then.
ADDED: dict[str, Any] = {"data.order_seed": None}


def to_config(values: Mapping[str, Any]) -> Config:
    """Check plain nested values against the schema; ConfigError lists every problem at once.

    The configuration holds no secret: see `addresses`.
    """
    chosen: dict[str, Any] = {}
    wrong: list[Any] = []
    found = lookup.everything()
    for group in BUILT_IN.keys() & values.keys():
        try:
            chosen[group] = _choice(group, found).validate_python(values[group])
        except ValidationError as error:
            wrong += [{**problem, "loc": (group, *problem["loc"])} for problem in error.errors()]
    try:
        config = _CONFIG.validate_python({**values, **chosen})
    except ValidationError as error:
        wrong += error.errors()
    if wrong:
        choices = choices_of(values)
        known = knobs(choices)
        raise ConfigError(sorted({_describe(problem, known, choices) for problem in wrong}))
    uri = config.tracking.uri
    refusal = addresses.refusal(uri) if uri else None
    if problems := [*contradictions(config), *([f"tracking.uri {refusal}"] if refusal else [])]:
        raise ConfigError(problems)
    if uri:
        tracking = dataclasses.replace(config.tracking, uri=addresses.keep_secrets(uri))
        config = dataclasses.replace(config, tracking=tracking)
    if isinstance(config.data, PlacedDataConfig) and config.data.path:
        path = project.portable_path(config.data.path)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=path))
    return config


@functools.cache
def _choice(group: str, _registered: lookup.Found) -> TypeAdapter[Any]:
    """Of one of the choices of a group, by its name."""
    one_of: Any = Union[tuple(dict.fromkeys(variants()[group].values()))]  # noqa: UP007
    return TypeAdapter(Annotated[one_of, Field(discriminator="name")])


def recorded_config(values: Mapping[str, Any]) -> Config:
    """The same of values that were written down, perhaps before some knob was there."""
    completed = copy.deepcopy(dict(values))
    for path, value in ADDED.items():
        group, _, leaf = path.partition(".")
        if isinstance(completed.get(group), dict):
            completed[group].setdefault(leaf, value)
    return to_config(completed)


def recorded_data(params: Mapping[str, str]) -> DataConfig:
    """The knobs of `data` among the params of a run.

    Raises:
        ConfigError: they do not fit today's schema, or the loader is not registered here.
    """
    values = {
        path.removeprefix("data."): from_param(path, text)
        for path, text in params.items()
        if path.startswith("data.")
    }
    try:
        data: DataConfig = _choice("data", lookup.everything()).validate_python(values)
    except ValidationError as error:
        problems = [{**problem, "loc": ("data", *problem["loc"])} for problem in error.errors()]
        choices: dict[str, str | None] = {"data": _name(values)}
        known = knobs(choices)
        raise ConfigError(sorted({_describe(one, known, choices) for one in problems})) from None
    return data


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested values, complete: `to_config(to_dict(c)) == c`."""
    return _CONFIG.dump_python(config)  # type: ignore[no-any-return]


def choices_of(values: Mapping[str, Any]) -> dict[str, str | None]:
    """What is chosen of each group whose knobs depend on it: `{"model": "cnn", ...}`."""
    return {group: _name(values.get(group)) for group in BUILT_IN}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted path: `{"model": {"name": "cnn"}}` to `{"model.name": "cnn"}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def set_leaf(values: dict[str, Any], path: str, value: Any) -> bool:
    """Set a leaf, adding what is missing on the way; False where the way leads through a leaf."""
    *parents, leaf = path.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            return False
        values = inner
    if isinstance(value, Mapping) and isinstance(values.get(leaf), dict):
        return all(set_leaf(values[leaf], str(key), inner) for key, inner in value.items())
    values[leaf] = value
    return True


def as_param(value: Any) -> str:
    """A knob's value as YAML would show it and MLflow records it: `0.1`, `true`, `null`."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def from_param(path: str, text: str) -> Any:
    """The value of the knob at `path` that `as_param` wrote."""
    knob = knobs().get(path)
    if text == "null":
        return None
    if knob is not None and knob.is_text:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _name(group: object) -> str | None:
    name = group.get("name") if isinstance(group, Mapping) else None
    return name if isinstance(name, str) else None


def _describe(problem: Any, known: Mapping[str, Knob], choices: Mapping[str, str | None]) -> str:
    """One sentence for one pydantic error: path, what is allowed, what came, the nearest name."""
    location = [str(part) for part in problem["loc"]]
    if len(location) > 1 and location[0] in choices:  # pydantic inserts the variant's name
        location = [location[0], *location[2:]]
    path, kind = ".".join(location), problem["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown(path, known, choices)
    if kind.startswith("union_tag"):
        names = ", ".join(variants()[path])
        got = shown(problem["input"].get("name"))
        return f"{path}.name must be one of {names}, got {got}: {lookup.why_missing(path)}"
    allowed = known[path].allowed if path in known else "a group of knobs"
    if kind == "missing":
        return f"{path} is missing: it must be {allowed}"
    return f"{path} must be {allowed}, got {shown(problem['input'])}"


def unknown(path: str, known: Mapping[str, Knob], choices: Mapping[str, str | None]) -> str:
    """The sentence that refuses a name that is no knob of this composition."""
    group = path.partition(".")[0]
    if path.endswith(".name") and group in variants():
        return f"{path} cannot be set by itself: choose it with {group}=NAME"
    others = [choice for choice in variants().get(group, ()) if path in knobs({group: choice})]
    if others:
        owners = f"{group}={', '.join(others)}"
        return f"{path} is a knob of {owners}, not of {group}={choices.get(group)}"
    if suggestion := nearest(path, known):
        return f"unknown knob {path}; did you mean {suggestion}?"
    return f"unknown knob {path}: `digitlab config --knobs` lists all"


def shown(value: Any) -> str:
    """A value within a sentence: never the whole of something large."""
    if isinstance(value, Mapping):
        return "a group"
    if value is None or isinstance(value, bool):
        return as_param(value)
    text = reprlib.repr(value) if isinstance(value, list) else repr(value)
    text = addresses.redacted(text)
    return text if len(text) <= 80 else text[:77] + "..."
