"""Checking plain values against the schema, with sentences that name what is wrong and what is meant.

Knows neither torch nor Hydra nor MLflow.
"""

import copy
import dataclasses
import difflib
import functools
import json
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from digitlab.config.schema import Config, contradictions
from digitlab.errors import ConfigError
from digitlab.text import addresses

_CONFIG = TypeAdapter(Config)
# Knobs that early records lack, each with what it was then.
ADDED: dict[str, Any] = {"data.order_seed": None}


@dataclasses.dataclass(frozen=True, slots=True)
class Knob:
    """One leaf of the configuration, such as `optimizer.learning_rate`."""

    path: str
    allowed: str
    choices: tuple[str, ...]
    is_text: bool
    is_integer: bool
    help: str
    group: str = ""  # the only choice that has it, such as `model=cnn`


def to_config(values: Mapping[str, Any]) -> Config:
    """Check plain nested values against the schema; ConfigError lists every problem at once.

    The configuration holds no secret: see `addresses`.
    """
    try:
        config = _CONFIG.validate_python(values)
    except ValidationError as error:
        choices = choices_of(values)
        known = knobs(choices)
        raise ConfigError(
            sorted({_describe(problem, known, choices) for problem in error.errors()})
        ) from None
    uri = config.tracking.uri
    refusal = addresses.refusal(uri) if uri else None
    if problems := [*contradictions(config), *([f"tracking.uri {refusal}"] if refusal else [])]:
        raise ConfigError(problems)
    if uri:
        tracking = dataclasses.replace(config.tracking, uri=addresses.keep_secrets(uri))
        config = dataclasses.replace(config, tracking=tracking)
    return config


def recorded_config(values: Mapping[str, Any]) -> Config:
    """The same of values that were written down, perhaps before some knob was there."""
    completed = copy.deepcopy(dict(values))
    for path, value in ADDED.items():
        group, _, leaf = path.partition(".")
        if isinstance(completed.get(group), dict):
            completed[group].setdefault(leaf, value)
    return to_config(completed)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested values, complete: `to_config(to_dict(c)) == c`."""
    return _CONFIG.dump_python(config)  # type: ignore[no-any-return]


def choices_of(values: Mapping[str, Any]) -> dict[str, str | None]:
    """What is chosen of each group whose knobs depend on it: `{"model": "cnn", ...}`."""
    return {group: _name(values.get(group)) for group in _variants()}


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


def knobs(choices: Mapping[str, str | None] | None = None) -> dict[str, Knob]:
    """All knobs by path; of the groups named in `choices` (`{"model": "cnn"}`) only that choice's."""
    wanted = {group: choice for group, choice in (choices or {}).items() if group in _variants()}
    return _knobs(tuple(wanted.items()))


@functools.cache
def _knobs(choices: tuple[tuple[str, str | None], ...]) -> dict[str, Knob]:
    found: dict[str, Knob] = {}
    for knob in _walk(Config, "", dict(choices)):
        if knob.path in found:  # several choices have it
            found[knob.path] = dataclasses.replace(found[knob.path], group="")
        else:
            found[knob.path] = knob
    return found


def text_knobs() -> list[str]:
    """Paths of the knobs whose values are text."""
    return [path for path, knob in knobs().items() if knob.is_text]


def nearest(name: str, known: Mapping[str, Any]) -> str | None:
    """The known path most like `name`; abbreviations count: `optimizer.lr`, `lr`, `wd`."""
    parent, _, leaf = name.rpartition(".")
    abbreviated = [
        path
        for path in known
        if leaf in (_initials(path), _initials(path).replace("_", "")) and path.startswith(parent)
    ]
    if abbreviated:
        return abbreviated[0]
    by_leaf = {path.rpartition(".")[2]: path for path in reversed(list(known))}
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    if close:
        return close[0]
    close = difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.6)
    return by_leaf[close[0]] if close else None


def _initials(path: str) -> str:
    return "".join(word[0] for word in path.rpartition(".")[2].split("_"))


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
        names = ", ".join(_variants()[path])
        got = shown(problem["input"].get("name"))
        return f"{path}.name must be one of {names}, got {got}: no {path} has that name"
    allowed = known[path].allowed if path in known else "a group of knobs"
    if kind == "missing":
        return f"{path} is missing: it must be {allowed}"
    return f"{path} must be {allowed}, got {shown(problem['input'])}"


def unknown(path: str, known: Mapping[str, Knob], choices: Mapping[str, str | None]) -> str:
    """The sentence that refuses a name that is no knob of this composition."""
    group = path.partition(".")[0]
    if path.endswith(".name") and group in _variants():
        return f"{path} cannot be set by itself: choose it with {group}=NAME"
    for choice in _variants().get(group, ()):
        if choice != choices.get(group) and path in knobs({group: choice}):
            return f"{path} is a knob of {group}={choice}, not of {group}={choices.get(group)}"
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


@functools.cache
def _variants() -> dict[str, dict[str, type]]:
    """The choices of each group whose knobs depend on the choice: group -> name -> dataclass."""
    found: dict[str, dict[str, type]] = {}
    for group, hint in typing.get_type_hints(Config, include_extras=True).items():
        bare, _ = _unwrap(hint)
        if _is_union(bare) and all(map(dataclasses.is_dataclass, bare.__args__)):
            found[group] = {
                name: variant
                for variant in bare.__args__
                for name in typing.get_args(typing.get_type_hints(variant)["name"])
            }
    return found


def _walk(schema: type, prefix: str, choices: Mapping[str, str | None]) -> Iterator[Knob]:
    for name, hint in typing.get_type_hints(schema, include_extras=True).items():
        bare, metadata = _unwrap(hint)
        if name in _variants() and not prefix:
            variants = _variants()[name]
            chosen = variants.get(choices.get(name) or "")
            for variant in [chosen] if chosen else dict.fromkeys(variants.values()):
                owner = " or ".join(f"{name}={n}" for n, other in variants.items() if other is variant)
                for knob in _walk(variant, f"{name}.", choices):
                    yield dataclasses.replace(knob, group=owner)
        elif dataclasses.is_dataclass(bare):
            yield from _walk(typing.cast(type, bare), f"{prefix}{name}.", choices)
        else:
            yield _knob(f"{prefix}{name}", bare, metadata)


def _unwrap(hint: Any) -> tuple[Any, list[Any]]:
    """`Annotated[Annotated[int, a], b]` to `(int, [a, b])`, with pydantic's fields taken apart."""
    metadata: list[Any] = []
    if typing.get_origin(hint) is Annotated:
        hint, *extra = typing.get_args(hint)
        for item in extra:
            metadata += [item, *item.metadata] if isinstance(item, FieldInfo) else [item]
    return hint, metadata


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _knob(path: str, hint: Any, metadata: list[Any]) -> Knob:
    about = [m.description for m in metadata if isinstance(m, FieldInfo) and m.description]
    optional = _is_union(hint)
    if optional:
        hint, inner = _unwrap(hint.__args__[0])
        metadata = [*metadata, *inner]
    choices: tuple[str, ...] = ()
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        allowed = "one of " + ", ".join(choices) if len(choices) > 1 else choices[0]
    elif hint is bool:
        choices, allowed = ("true", "false"), "true or false"
    elif hint is str:
        limit = next((m.max_length for m in metadata if isinstance(m, MaxLen)), None)
        allowed = f"text of 1 to {limit} characters"
    else:
        allowed = _range("an integer" if hint is int else "a number", metadata)
    if optional:
        choices, allowed = (*choices, "null"), f"{allowed}, or null"
    return Knob(path, allowed, choices, hint is str, hint is int, about[-1] if about else "")


def _range(kind: str, metadata: list[Any]) -> str:
    """`a number in (0, 1]`, `an integer >= 0`, from the bounds in the annotations."""
    low = next((m for m in metadata if isinstance(m, Gt | Ge)), None)
    high = next((m for m in metadata if isinstance(m, Lt | Le)), None)
    match low, high:
        case None, None:
            return kind
        case (Gt(gt=bound), None):
            return f"{kind} > {bound}"
        case (Ge(ge=bound), None):
            return f"{kind} >= {bound}"
    opening, lowest = ("(", low.gt) if isinstance(low, Gt) else ("[", low.ge)  # type: ignore[union-attr]
    closing, highest = (")", high.lt) if isinstance(high, Lt) else ("]", high.le)  # type: ignore[union-attr]
    return f"{kind} in {opening}{lowest}, {highest}{closing}"
