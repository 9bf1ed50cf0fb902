"""JSON Schema of the files of conf/, for editors: what each knob may be, and what it means.

Made of the dataclasses that check a configuration, with the components that this environment has. An
editor knows less than the check: it sees one file, where Hydra lays several over one another.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import quote

from pydantic import TypeAdapter

from digitlab.config import project
from digitlab.config.knobs import groups, variants
from digitlab.config.schema import Config
from digitlab.errors import UsageError
from digitlab.sweep.planning.space import NOT_SWEPT
from digitlab.sweep.settings import (
    EngineSettings,
    ExecutorSettings,
    Interval,
    SweepSettings,
)
from digitlab.text import yaml_text
from digitlab.text.files import write_atomically

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]
Kinds = Mapping[str, type]  # the choices of a group by name; one without a name is the only one

DEFAULTS: Schema = {
    "description": "choices and files of conf/ that this file is laid over, in this order",
    "type": "array",
    "items": {"type": ["string", "object"]},
}


def schemas() -> dict[str, Schema]:
    """By the names of their files.

    `model` is for conf/model/*.yaml, and so on; `experiment` for every preset; `config` for
    conf/config.yaml; `resolved` for what `digitlab config` prints and a run records.
    """
    made = {group: _group_file(kinds) for group, kinds in _groups().items()}
    made["sweep"] = _sweep_file()
    made["experiment"] = _preset("override /{}")
    made["config"] = _preset("{}")
    made["resolved"] = _resolved()
    about = {name: {"$schema": DIALECT, "title": f"digitlab: {name}"} for name in made}
    return {name: about[name] | made[name] for name in sorted(made)}


def text_of(name: str) -> str:
    """A schema as a file has it."""
    known = schemas()
    if name not in known:
        raise UsageError(f"there is a schema of each of {', '.join(known)}, got {name}")
    return _text(known[name])


def write() -> Path:
    """Write all schemas into conf/.schema/ of this project; returns that folder."""
    folder = project.conf() / project.SCHEMAS
    try:
        folder.mkdir(exist_ok=True)
        for name, made in schemas().items():
            write_atomically(folder / f"{name}.json", _text(made))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from None
    return folder


def _text(made: Schema) -> str:
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _groups() -> dict[str, Kinds]:
    """Those whose files hold values of their own, other than presets and sweeps."""
    executors = {get_args(get_type_hints(kind)["name"])[0]: kind for kind in get_args(ExecutorSettings)}
    hints = get_type_hints(Config)
    single = {group: hints[group] for group in groups() if dataclasses.is_dataclass(hints.get(group))}
    only = {group: {"": kind} for group, kind in single.items()}
    return {**variants(), **only, "engine": {"": EngineSettings}, "executor": executors}


def _group_file(kinds: Kinds) -> Schema:
    """Complete, or with a `defaults` list a part of what that makes complete."""
    part = _closed({"defaults": DEFAULTS, **_leaves(kinds.values())})
    if "" in kinds:
        return part | {"if": {"required": ["defaults"]}, "else": {"required": _required(kinds[""])}}
    names = {"name": {"enum": [*kinds]}}
    return part | {
        "properties": part["properties"] | names,
        "if": {"required": ["defaults"]},
        "else": _complete(kinds),
    }


def _complete(kinds: Kinds) -> Schema:
    """Every knob of one of the kinds, and no other."""
    return {
        "type": "object",
        "properties": {"name": {"enum": [*kinds]}},
        "required": ["name"],
        "allOf": [
            {
                "if": {"properties": {"name": {"const": name}}},
                "then": _closed(_leaves([kind]) | {"name": {"const": name}}, _required(kind)),
            }
            for name, kind in kinds.items()
        ],
    }


def _preset(choice: str) -> Schema:
    """A part of a configuration. choice: how its `defaults` list names a group: `override /{}`."""
    sections = {**_sections(), "sweep": _closed(_sweep())}
    for group in ("engine", "executor"):
        sections[group] = _closed(_knobs(_groups()[group].values()))
    chosen = [
        {
            "if": _chooses(choice.format(group), name),
            "then": {"properties": {group: _closed(_knobs([kind]))}},
        }
        for group, kinds in variants().items()
        for name in groups()[group]
        if (kind := kinds.get(_name_in(group, name)))
    ]
    return _closed({"defaults": DEFAULTS, **sections}) | {"allOf": chosen, "$defs": _definitions()}


def _chooses(group: str, choice: str) -> Schema:
    """Its `defaults` list has this entry."""
    entry = {"type": "object", "required": [group], "properties": {group: {"const": choice}}}
    return {"required": ["defaults"], "properties": {"defaults": {"contains": entry}}}


def _name_in(group: str, choice: str) -> str:
    """The name that a file of conf/ gives; a file that leaves it to its defaults gives none."""
    file = project.conf_file(f"{group}/{choice}.yaml")
    return str(yaml_text.read(file).get("name")) if file.is_file() else choice


def _resolved() -> Schema:
    sections = _sections() | {group: _complete(kinds) for group, kinds in variants().items()}
    for name, kind in get_type_hints(Config).items():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            sections[name] |= {"required": _required(kind)}
    return _closed(sections, [*sections])


def _sections() -> dict[str, Schema]:
    """Every knob of a run, none of them required."""
    sections: dict[str, Schema] = {}
    for name, hint in get_type_hints(Config, include_extras=True).items():
        kind = get_type_hints(Config)[name]
        if name in variants():
            sections[name] = _closed(_knobs(variants()[name].values()))
        elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
            sections[name] = _closed(_leaves([kind]))
        else:
            sections[name] = _leaf(hint)
    return sections


def _sweep_file() -> Schema:
    required = {"if": {"required": ["defaults"]}, "else": {"required": _required(SweepSettings)}}
    return _closed({"defaults": DEFAULTS, **_sweep()}) | required | {"$defs": _definitions()}


def _sweep() -> dict[str, Schema]:
    """Settings of a sweep; see `_definitions` for what it varies."""
    axes = {"$ref": "#/$defs/axes"}
    excluded = {"type": "array", "items": {"$ref": "#/$defs/combination"}}
    parts: dict[str, Schema] = {"grid": axes, "zip": axes, "exclude": excluded}
    own: dict[str, Schema] = {
        **parts,
        "space": axes,
        "concat": {"type": "array", "items": _closed(parts)},
    }
    hints = get_type_hints(SweepSettings, include_extras=True)
    about = {name: _leaf(hint).get("description", "") for name, hint in hints.items() if name in own}
    rest = {name: _leaf(hint) for name, hint in hints.items() if name not in own}
    return rest | {name: {"description": about[name], **made} for name, made in own.items()}


def _swept() -> dict[str, Schema]:
    """What a sweep may vary: knobs by their paths, and the choices of groups."""
    found: dict[str, Schema] = {
        group: {"enum": names} if group in variants() else {"type": ["string", "null"]}
        for group, names in groups().items()
    }
    for name, section in _sections().items():
        inner = section.get("properties")
        found |= {f"{name}.{leaf}": made for leaf, made in inner.items()} if inner else {name: section}
    skipped = (*NOT_SWEPT, "sweep", "executor", "engine")
    return {knob: made for knob, made in found.items() if knob.partition(".")[0] not in skipped}


def _definitions() -> dict[str, Schema]:
    """The knobs that a sweep may vary, with one value each, or with several."""
    knobs = _swept()
    interval = {"$ref": "#/$defs/interval"}
    several = {}
    for name in knobs:
        one = {"$ref": f"#/$defs/combination/properties/{quote(name.replace('~', '~0'))}"}
        several[name] = {"anyOf": [one, {"type": "array", "items": one}, interval]}
    return {
        "interval": _closed(_leaves([Interval]), ["low", "high"]),
        "combination": _closed(knobs),
        "axes": _closed(several),
    }


def _closed(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    made = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return made | ({"required": [*required]} if required else {})


def _leaves(kinds: Iterable[type]) -> dict[str, Schema]:
    """The knobs of one or several classes; of a name that several have, what any of them allows."""
    found: dict[str, list[Schema]] = {}
    for kind in dict.fromkeys(kinds):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            leaf = _leaf(hint)
            if leaf not in found.setdefault(name, []):
                found[name].append(leaf)
    return {name: ones[0] if len(ones) == 1 else {"anyOf": ones} for name, ones in found.items()}


def _knobs(kinds: Iterable[type]) -> dict[str, Schema]:
    """Without the name, which a choice of the group sets."""
    return {name: made for name, made in _leaves(kinds).items() if name != "name"}


def _leaf(hint: Any) -> Schema:
    return TypeAdapter(hint).json_schema()


def _required(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
