"""Where components come from: the project's models.py and data.py, and packages by entry point.

Their descriptions are kept in the user's cache under the digest of their source, so that TAB and the
controller of a sweep wait for no import of torch.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from digitlab.config.components import source
from digitlab.config.components.register import REGISTERED
from digitlab.config.components.signature import NoKnob, Spec, specs_of
from digitlab.config.data_schema import OwnDataConfig
from digitlab.text.files import write_atomically

OF_ALL_DATA = {field.name for field in dataclasses.fields(OwnDataConfig)}
MODULES = ("models.py", "data.py")  # of a project
POINTS = {  # entry points by group of knobs
    "model": "digitlab.models",
    "optimizer": "digitlab.optimizers",
    "scheduler": "digitlab.schedulers",
    "data": "digitlab.datasets",
}
NUM_GIVEN = {"model": 2, "optimizer": 1, "scheduler": 2, "data": 0}  # arguments by position
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
FORMAT = 1  # of what is kept
Factories = Mapping[tuple[str, str], Callable[..., Any]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """A project or an entry point. modules: its files, below `root`. load: its components, by group and
    name; imports them."""

    key: str
    modules: Sequence[Path]
    root: Path
    distribution: str
    version: str
    load: Callable[[], Factories]


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """A component without itself."""

    group: str
    name: str
    file: str
    specs: tuple[Spec, ...]


def origins(home: Path | None, problems: list[str]) -> Iterator[Origin]:
    """Of the project, then of installed packages in the order of their names."""
    if home and (modules := [home / name for name in MODULES if (home / name).is_file()]):
        name, version = _project(home)
        load = functools.cache(functools.partial(_import_project, home, modules))
        yield Origin("project", modules, home, name, version, load)
    for group, points in POINTS.items():
        for point in sorted(importlib.metadata.entry_points(group=points), key=lambda p: p.name):
            if (place := source.module_file(point.module)) is None:
                problems.append(f"{group}={point.name}: there is no module {point.module}")
                continue
            owner = point.dist
            yield Origin(
                f"{group}={point.name}",
                [place[0]],
                place[1],
                owner.name if owner else point.module.partition(".")[0],
                owner.version if owner else "unknown",
                functools.cache(functools.partial(_import_point, group, point)),
            )


def described(origin: Origin, problems: list[str]) -> list[Description]:
    """Its components; imported only if the source has changed since this was last asked."""
    try:
        kept = _kept_in(origin)
        if (descriptions := _read(kept)) is not None:
            return descriptions
        descriptions = [*_describe(origin, origin.load(), problems)]
    except OSError as error:
        problems.append(f"{error.filename}: {error.strerror}")
        return []
    except (Exception, SystemExit) as error:
        problems.append(where_failed(error, origin.root))
        return []
    with contextlib.suppress(OSError):  # a disk that is full or read-only: imported each time
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps([dataclasses.asdict(one) for one in descriptions]))
    return descriptions


def where_failed(error: BaseException, root: Path) -> str:
    """One line on what failed in a user's own code: `models.py, line 12: NameError: ...`."""
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    text = " ".join(f"{type(error).__name__}: {what}".split())
    place = place_of(error, root)
    return f"{place}: {text}" if place else text


def place_of(error: BaseException, root: Path) -> str | None:
    """The line below `root` that raised it, `models.py, line 12`; None if none did."""
    if isinstance(error, SyntaxError) and error.filename:
        file, line = Path(error.filename), error.lineno
        return f"{file.relative_to(root) if file.is_relative_to(root) else file}, line {line}"
    own = [
        (Path(frame.filename).relative_to(root), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if is_own(Path(frame.filename), root)
    ]
    return f"{own[-1][0]}, line {own[-1][1]}" if own else None


def _describe(origin: Origin, loaded: Factories, problems: list[str]) -> Iterator[Description]:
    for (group, name), factory in loaded.items():
        try:
            if not NAME.fullmatch(name):
                raise NoKnob("a name is made of letters, digits, _ and -, and begins with a letter")
            specs = tuple(specs_of(factory, NUM_GIVEN[group]))
            kinds = {spec.name: spec.kind for spec in specs}
            if group == "optimizer" and kinds.get("learning_rate") != "float":
                raise NoKnob("it needs the knob learning_rate: float, which schedulers scale")
            if group == "data" and (taken := kinds.keys() & OF_ALL_DATA):
                raise NoKnob(f"no knob of its own can be called {min(taken)}: all data have that one")
        except NoKnob as error:
            problems.append(f"{group} {name!a}: {error}")
        else:
            file = _file_of(factory)
            if file is None or not is_own(file, origin.root):  # it registers another's
                file = origin.modules[0]
            yield Description(group, name, file.relative_to(origin.root).as_posix(), specs)


def _import_project(home: Path, modules: Sequence[Path]) -> Factories:
    """Everything that is registered by a file of the project."""
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))  # what a module imports from beside it
    for path in modules:
        name = f"digitlab_project_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None, "it ends in .py"
        assert spec.loader is not None, "it is a file"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return {
        (one.group, one.name): one.factory
        for one in REGISTERED
        if (file := _file_of(one.factory)) and is_own(file, home)
    }


def _import_point(group: str, point: importlib.metadata.EntryPoint) -> Factories:
    return {(group, point.name): point.load()}


def is_own(file: Path, root: Path) -> bool:
    """Whether it lies below `root`, but in no environment there."""
    return file.is_relative_to(root) and "site-packages" not in file.relative_to(root).parts


def _file_of(factory: Callable[..., Any]) -> Path | None:
    try:
        return Path(inspect.getfile(inspect.unwrap(factory))).resolve()
    except (TypeError, OSError):
        return None


def _project(home: Path) -> tuple[str, str]:
    """Its name and version, as its pyproject.toml has them, or else the name of its folder."""
    try:
        named = tomllib.loads((home / "pyproject.toml").read_text())["project"]
        return str(named["name"]), str(named.get("version", "unknown"))
    except (OSError, ValueError, KeyError):
        return home.name, "unknown"


def _kept_in(origin: Origin) -> Path:
    files = source.files_of(origin.modules, origin.root)
    rules = [Path(__file__).with_name(name).read_text() for name in ("origins.py", "signature.py")]
    text = json.dumps([FORMAT, origin.key, str(origin.root), source.digests(files), rules])
    name = hashlib.sha256(text.encode()).hexdigest()
    return Path(platformdirs.user_cache_dir("digitlab")) / "components" / f"{name}.json"


def _read(kept: Path) -> list[Description] | None:
    try:
        listed = json.loads(kept.read_text())
        return [
            Description(
                one["group"],
                one["name"],
                one["file"],
                tuple(Spec(**{**spec, "choices": tuple(spec["choices"])}) for spec in one["specs"]),
            )
            for one in listed
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
