"""What may be set: every knob of the schema with what it may be, and the knob most like a name."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic.fields import FieldInfo

from digitlab.config import project
from digitlab.config.components import lookup
from digitlab.config.schema import BUILT_IN, Config


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


def knobs(choices: Mapping[str, str | None] | None = None) -> dict[str, Knob]:
    """All knobs by path; of the groups named in `choices` (`{"model": "cnn"}`) only that choice's."""
    relevant = {group: choice for group, choice in (choices or {}).items() if group in BUILT_IN}
    return _knobs(tuple(relevant.items()), lookup.everything())


@functools.cache
def _knobs(choices: tuple[tuple[str, str | None], ...], _registered: lookup.Found) -> dict[str, Knob]:
    by_path: dict[str, Knob] = {}
    for knob in _walk(Config, "", dict(choices)):
        if knob.path in by_path:  # several choices have it
            by_path[knob.path] = dataclasses.replace(by_path[knob.path], group="")
        else:
            by_path[knob.path] = knob
    return by_path


def groups() -> dict[str, list[str]]:
    """The groups of conf/ with their choices, and components that no file of conf/ names."""
    named = {group: set(files) for group, files in project.groups().items()}
    for group, components in lookup.everything().components.items():
        named.setdefault(group, set()).update(components)
    return {group: sorted(named[group]) for group in sorted(named)}


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


def variants() -> dict[str, dict[str, type]]:
    """The choices of each group whose knobs depend on the choice: group -> name -> dataclass.

    digitlab's own, then those that this environment has registered.
    """
    return _variants(lookup.everything())


@functools.cache
def _variants(found: lookup.Found) -> dict[str, dict[str, type]]:
    own = {g: {n: one.schema for n, one in named.items()} for g, named in found.components.items()}
    return {group: {**choices, **own[group]} for group, choices in BUILT_IN.items()}


def _walk(schema: type, prefix: str, choices: Mapping[str, str | None]) -> Iterator[Knob]:
    for name, hint in typing.get_type_hints(schema, include_extras=True).items():
        bare, _ = _unwrap(hint)
        if name in BUILT_IN and not prefix:
            named = variants()[name]
            chosen = named.get(choices.get(name) or "")
            for variant in [chosen] if chosen else dict.fromkeys(named.values()):
                owner = " or ".join(f"{name}={n}" for n, other in named.items() if other is variant)
                for knob in _walk(variant, f"{name}.", choices):
                    yield dataclasses.replace(knob, group=owner)
        elif dataclasses.is_dataclass(bare):
            yield from _walk(typing.cast(type, bare), f"{prefix}{name}.", choices)
        else:
            yield knob_of(f"{prefix}{name}", hint)


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


def knob_of(path: str, hint: Any) -> Knob:
    """Of an annotation. allowed: empty where it is a dict or a list, of which its help says enough."""
    hint, metadata = _unwrap(hint)
    about = [m.description for m in metadata if isinstance(m, FieldInfo) and m.description]
    optional = _is_union(hint)
    if optional:
        hint, inner = _unwrap(hint.__args__[0])
        metadata = [*metadata, *inner]
    choices: tuple[str, ...] = ()
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        allowed = "one of " + ", ".join(choices) if len(choices) > 1 else choices[0]
    elif typing.get_origin(hint) in (dict, list):
        allowed = ""
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
