"""The knobs of a component: from the keyword arguments of its class or function to a closed schema.

In between stands plain data, which can be kept in a file: a schema is made without the component.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from digitlab.config.kinds import CLOSED, Integer, Number, OwnConfig, Switch, Text

KINDS: dict[str, Any] = {"int": Integer, "float": Number, "bool": Switch, "str": Text}
UNIONS = (typing.Union, types.UnionType)
TYPES = (int, float, bool, str)
BOUNDS: dict[str, Any] = {"ge": Ge, "gt": Gt, "le": Le, "lt": Lt}


class NoKnob(Exception):  # noqa: N818  (what it is)
    """An argument that cannot be a knob: why, and what would be one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One knob as plain data.

    kind: `int`, `float`, `bool`, `str`, or `choice` of `choices`. bounds: `{"ge": 1, "lt": 10}`.
    """

    name: str
    kind: str
    choices: tuple[str, ...] = ()
    bounds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    is_optional: bool = False
    has_default: bool = False
    default: Any = None
    help: str = ""


def specs_of(factory: Callable[..., Any], num_positional: int) -> list[Spec]:
    """The knobs of a class or function: its arguments that are given by keyword only.

    num_positional: arguments before them, which digitlab gives it.

    Raises:
        NoKnob: its arguments are others.
    """
    try:
        parameters = [*inspect.signature(factory).parameters.values()]
        hints = _hints(factory)
    except (NameError, TypeError, ValueError) as error:
        raise NoKnob(f"its arguments cannot be read: {error}") from None
    knobs = [p for p in parameters if p.kind == p.KEYWORD_ONLY]
    others = [p for p in parameters if p not in knobs]
    if len(others) != num_positional or any(p.kind == p.VAR_KEYWORD for p in parameters):
        names = ", ".join(str(p) for p in others) or "none"
        raise NoKnob(
            f"it must take {num_positional} arguments by position and its knobs by keyword, after a *; "
            f"by position it takes {names}"
        )
    return [_spec(parameter, hints.get(parameter.name, parameter.empty)) for parameter in knobs]


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    function = factory.__init__ if inspect.isclass(factory) else factory
    return typing.get_type_hints(function, include_extras=True)


def _spec(parameter: inspect.Parameter, hint: Any) -> Spec:
    name, metadata = parameter.name, []
    if typing.get_origin(hint) is Annotated:
        hint, *metadata = typing.get_args(hint)
    metadata = [m for item in metadata for m in ([item, *item.metadata] if _is_field(item) else [item])]
    is_optional = typing.get_origin(hint) in UNIONS
    if is_optional:
        inner = [one for one in typing.get_args(hint) if one is not type(None)]
        hint = inner[0] if len(inner) == 1 else None
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    is_choice = bool(choices) and all(isinstance(choice, str) for choice in choices)
    if name == "name":
        raise NoKnob("no knob can be called name: that is the component's own")
    if hint not in TYPES and not is_choice:
        raise NoKnob(
            f"{name} must be annotated as int, float, bool, str or Literal of texts, or one of them "
            f"| None, got {'nothing' if hint is parameter.empty else hint}"
        )
    has_default = parameter.default is not parameter.empty
    spec = Spec(
        name=name,
        kind="choice" if is_choice else hint.__name__,
        choices=choices,
        bounds={
            word: getattr(m, word) for m in metadata for word, kind in BOUNDS.items() if type(m) is kind
        },
        is_optional=is_optional,
        has_default=has_default,
        default=parameter.default if has_default else None,
        help=next((m.description for m in metadata if _is_field(m) and m.description), ""),
    )
    if has_default:
        try:
            TypeAdapter(annotation(spec)).validate_python(spec.default)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise NoKnob(f"the default of {name}, {spec.default!r}, is refused: {reason}") from None
    return spec


def _is_field(item: Any) -> bool:
    return isinstance(item, FieldInfo)


def schema_of(name: str, specs: Sequence[Spec], base: type = OwnConfig) -> type:
    """A closed dataclass with the component's name and its knobs. base: whose knobs it has besides."""
    annotations = {"name": Literal[name], **{spec.name: annotation(spec) for spec in specs}}
    defaults = {spec.name: spec.default for spec in specs if spec.has_default}
    bare = type(f"{name}_config", (base,), {"__annotations__": annotations, **defaults})
    made: type = dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)(bare)
    return made


def annotation(spec: Spec) -> Any:
    """As the schema annotates its own knobs."""
    kind: Any = Literal[spec.choices] if spec.choices else KINDS[spec.kind]
    if spec.bounds:
        kind = Annotated[kind, *(BOUNDS[word](bound) for word, bound in spec.bounds.items())]
    return Annotated[kind | None if spec.is_optional else kind, Field(description=spec.help)]
