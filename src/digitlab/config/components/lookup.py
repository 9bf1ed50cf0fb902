"""Which components this environment has: the project's own, and those of installed packages.

A configuration or a record names one; what it names is looked up here and nowhere else.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from digitlab.config import project
from digitlab.config.components import source
from digitlab.config.components.origins import (
    OF_ALL_DATA,
    Origin,
    described,
    origins,
    place_of,
    where_failed,
)
from digitlab.config.components.signature import schema_of
from digitlab.config.data_schema import OwnDataConfig
from digitlab.config.kinds import OwnConfig
from digitlab.config.schema import BUILT_IN, OwnOptimizerConfig
from digitlab.errors import UsageError

BASES: dict[str, type] = {
    "optimizer": OwnOptimizerConfig,
    "data": OwnDataConfig,
}  # what a choice of a group has at least
# Knobs that the component itself is not given.
NOT_GIVEN = {**{group: {"name"} for group in BUILT_IN}, "data": OF_ALL_DATA}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One registered model, optimizer, scheduler or data set.

    file: where it is defined, `models.py`. schema: its knobs, a dataclass with `name`.
    """

    group: str
    name: str
    file: str
    origin: Origin
    schema: type

    def __str__(self) -> str:
        return f"{self.group}={self.name} of {self.file}"

    @property
    def values(self) -> dict[str, Any]:
        """Its name and the defaults of its knobs, as a file of conf/ would have them."""
        fields = dataclasses.fields(self.schema)
        defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
        return {"name": self.name, **defaults}

    def load(self) -> Callable[..., Any]:
        """The class or function itself; imports what its file imports."""
        return self.origin.load()[self.group, self.name]

    @property
    def files(self) -> Mapping[str, bytes]:
        """Its file and what that imports from beside it."""
        return _files(self.origin.root / self.file, self.origin.root)

    @property
    def form_digest(self) -> str:
        """SHA-256 in hex over what its source does: comments and formatting change nothing."""
        text = json.dumps(source.forms(self.files), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Found:
    """components: by group and name. problems: what cannot be registered, a sentence each."""

    components: Mapping[str, Mapping[str, Component]]
    problems: tuple[str, ...]


def registered(group: str) -> Mapping[str, Component]:
    """The components of a group by name; why others are missing is in `everything().problems`."""
    return everything().components[group]


def everything() -> Found:
    """All components, as they were when this process first asked from here."""
    return _from(os.environ.get("DIGITLAB_HOME"), project.working_directory())


def why_missing(group: str) -> str:
    """Why a name may be unknown, and what mends it."""
    reasons = everything().problems
    known = f"no {group} of that name is registered here: install its package, or go to its project"
    return "; ".join([known, *reasons])


def what_failed(error: BaseException) -> str:
    """`ValueError: ...`, with file and line where a component's source raised it."""
    groups = everything().components.values()
    roots = {component.origin.root for named in groups for component in named.values()}
    root = next((root for root in roots if place_of(error, root)), None)
    return where_failed(error, root) if root else f"{type(error).__name__}: {error}"


def chosen(config: Mapping[str, Any]) -> dict[str, Component]:
    """The components that the nested values of a configuration name, by group."""
    return {
        group: components[config[group]["name"]]
        for group, components in sorted(everything().components.items())
        if isinstance(config.get(group), Mapping) and config[group].get("name") in components
    }


def build(group: str, config: OwnConfig, *given: Any) -> Any:
    """What the component of that name makes of `given` and its knobs."""
    component = registered(group)[config.name]
    own = {field.name for field in dataclasses.fields(component.schema)} - NOT_GIVEN[group]
    return component.load()(*given, **{name: getattr(config, name) for name in own})


@functools.cache
def _from(_chosen: str | None, _here: Path | None) -> Found:
    """Of the project that these two mean, found once: it takes longer than checking a configuration."""
    try:
        return _everything(project.home())
    except UsageError:
        return _everything(None)


@functools.cache
def _everything(home: Path | None) -> Found:
    components: dict[str, dict[str, Component]] = {group: {} for group in BUILT_IN}
    problems: list[str] = []
    for component in _all(home, problems):
        named = components[component.group]
        if component.name in BUILT_IN[component.group]:
            problems.append(f"{component}: digitlab has one of this name, choose another")
        elif component.name in named:
            problems.append(f"{component}: {named[component.name]} has this name and counts")
        else:
            named[component.name] = component
    return Found(components, tuple(problems))


def _all(home: Path | None, problems: list[str]) -> Iterator[Component]:
    for origin in origins(home, problems):
        for part in described(origin, problems):
            schema = schema_of(part.name, part.specs, BASES.get(part.group, OwnConfig))
            yield Component(
                group=part.group, name=part.name, file=part.file, origin=origin, schema=schema
            )


@functools.cache
def _files(file: Path, root: Path) -> Mapping[str, bytes]:
    return source.files_of([file], root)
