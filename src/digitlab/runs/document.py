"""The document of a run: one JSON file from which it can be run again and checked.

It may come from a shared server, so it is read as data: plain JSON of a bounded size into closed
types, from which nothing is looked up, resolved or executed.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from digitlab.config.checking import flatten, recorded_config, set_leaf
from digitlab.config.kinds import CLOSED, Integer, Seed, Switch
from digitlab.config.schema import Config
from digitlab.data.known import NUM_CLASSES, SIDE
from digitlab.errors import ConfigError, DigitlabError
from digitlab.runs.trace import Trace
from digitlab.text.formats import Format, LaterFormat

FORMAT = Format()  # docs/record.md says what a document of each version holds
MAX_BYTES = 16_000_000
MAX_VALUES = 200_000  # a run of 33,000 epochs has as many; were all wrong, telling it takes 200 MB
MAX_DEPTH = 8
MAX_TEXT = 1000
MAX_KNOBS = 200  # for each unknown one the nearest is searched
MAX_PROBLEMS = 20
NAMES = ("config.study", "config.run_name")  # they become names of files and of experiments
# Names of knobs, of packages, of metrics (train/loss) and of source files (sweep/__init__.py).
PLAIN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./ -]{0,99}|_[A-Za-z0-9_]{0,99}\.py")
# Control characters, separators of lines, marks that turn the direction of text, lone surrogates.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
ENCODED_PATH = re.compile(r"%(25)*(2e|2f|5c)", re.IGNORECASE)
LOCAL = {"tracking": {"uri": None}, "data": {"root": None}}  # a record decides no place on this machine

Commit = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64}|unknown)$")]
Length = Annotated[Integer, Field(ge=1, le=256)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class RefusedDocument(DigitlabError):  # noqa: N818  (what happened to it)
    """A document that is damaged, hostile or of another version. `problems`: one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class Code:
    """commit: `unknown` outside a checkout. dirty: `true`, `false` or `unknown`.

    patch: SHA-256 of the file with the uncommitted changes, None without any.
    source: SHA-256 over `files`, which maps each file of the package to the start of its SHA-256.
    """

    version: str
    commit: Commit
    dirty: Annotated[str, Field(pattern=r"^(true|false|unknown)$")]
    patch: Digest | None
    source: str
    files: dict[str, str]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class Source:
    """A component that is not digitlab's own. distribution, version: of the project or package that
    registered it. files: its source, each with the start of its SHA-256."""

    name: str
    distribution: str
    version: str
    files: dict[str, str]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class Document:
    """config: all knobs, as resolved. config_sha256: of its canonical JSON (see `config_digest`).

    components: the user's own ones that config names, by group.

    data: SHA-256 of images and labels as decoded and of the validation split's indices. arithmetic,
    canary: see arithmetic.py. reproducible: false if a training went on by force over a change.
    trace: None before the run has ended. image_shape: channels, height, width of the data's images.
    num_classes: of the data. An earlier digitlab, which knew 28x28 and ten alone, has left out both.
    """

    format: Integer
    command: str
    config: dict[str, Any]
    config_sha256: str
    seed: Seed
    code: Code
    data: dict[str, str]
    device: Literal["cpu", "cuda"]
    threads: Annotated[Integer, Field(ge=1, le=1024)]
    arithmetic: dict[str, str]
    canary: str
    versions: dict[str, str]
    machine: dict[str, str]
    reproducible: Switch
    trace: Trace | None
    image_shape: Annotated[list[Length], Field(min_length=3, max_length=3)] = dataclasses.field(
        default_factory=lambda: [1, SIDE, SIDE]
    )
    num_classes: Annotated[Integer, Field(ge=2, le=1000)] = NUM_CLASSES
    components: dict[str, Source] = dataclasses.field(default_factory=dict)

    def checked_config(self, changes: Mapping[str, Any] | None = None) -> Config:
        """The configuration by today's schema; places (data, store) are left to this machine.

        changes: knobs by path that replace the recorded ones.

        Raises:
            ConfigError: it does not fit the schema: every problem with its path.
        """
        values = _merged(self.config, LOCAL)
        for path, value in (changes or {}).items():
            if not set_leaf(values, path, value):
                raise ConfigError([f"{path} cannot be set: its group is no group in the record"])
        return recorded_config(values)


_DOCUMENT = TypeAdapter(Document)


def to_plain(document: Document) -> dict[str, Any]:
    """As JSON has it; without what an earlier digitlab would not know where there is none of it."""
    values = dataclasses.asdict(document)
    if (document.image_shape, document.num_classes) == ([1, SIDE, SIDE], NUM_CLASSES):
        del values["image_shape"], values["num_classes"]
    if not document.components:
        del values["components"]
    return values


def dump(document: Document) -> str:
    return json.dumps(to_plain(document), indent=1, allow_nan=False) + "\n"


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of the configuration as JSON with sorted keys and without spaces."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse(content: bytes) -> Document:
    """Read a document from an untrusted source; its configuration is not checked yet.

    Raises:
        RefusedDocument: every reason, with the key.
    """
    if len(content) > MAX_BYTES:
        raise RefusedDocument([f"it has {len(content)} bytes, more than {MAX_BYTES}"])
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise RefusedDocument([f"it has more than {MAX_VALUES} values"])
    try:
        values = json.loads(content.decode(), object_pairs_hook=_no_key_twice, parse_int=_integer)
    except RecursionError:
        raise RefusedDocument(["it is nested too deeply"]) from None
    except ValueError as error:
        raise RefusedDocument([f"it is not JSON: {error}"]) from None
    if not isinstance(values, dict):
        raise RefusedDocument(["it must be a JSON object"])
    _check_version(values)
    if problems := _first(_suspicious(values, "", 1)):
        raise RefusedDocument(problems)
    document = _of_plain(values)
    if problems := list(_contradictions(document)):
        raise RefusedDocument(problems)
    return document


def differing_knobs(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Knobs with other values, by path; a knob that one of them lacks is `None` there."""
    first, second = flatten(one), flatten(other)
    pairs = {path: (first.get(path), second.get(path)) for path in {**first, **second}}
    return {path: (before, now) for path, (before, now) in pairs.items() if before != now}


def _check_version(values: dict[str, Any]) -> None:
    """Before anything else: what a later version holds may look wrong to this one."""
    try:
        FORMAT.version(values)
    except (LaterFormat, ValueError) as error:
        raise RefusedDocument([str(error)]) from None


def _of_plain(values: dict[str, Any]) -> Document:
    try:
        return _DOCUMENT.validate_python(FORMAT.upgraded(values))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)
        raise RefusedDocument(_first(map(_describe, wrong))) from None
    except ValueError as error:
        raise RefusedDocument([str(error)]) from None


def _suspicious(value: Any, path: str, depth: int) -> Iterator[str]:
    """Problems of values at any depth that are not plain data."""
    if depth > MAX_DEPTH:
        yield f"{path} is nested more than {MAX_DEPTH} deep"
    elif isinstance(value, dict):
        for key, inner in value.items():
            inner_path = f"{path}.{key}" if path else key
            if not PLAIN_KEY.fullmatch(key) or ".." in key:
                yield f"{_plain(inner_path)}: a key must be a plain name"
            else:
                yield from _suspicious(inner, inner_path, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _suspicious(inner, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str):
        yield from _suspicious_text(value, path)
    elif isinstance(value, float) and not math.isfinite(value):  # NaN, Infinity, 1e999
        yield f"{path} must be a finite number, got {value}"


def _suspicious_text(text: str, path: str) -> Iterator[str]:
    if UNPRINTABLE.search(text):
        yield f"{path} must be printable, got {_show(text)}"
    if path == "command":  # as it was typed, of any length; it is never run
        return
    if "${" in text:
        yield f"{path} must be a plain value, got an interpolation: {_show(text)}"
    if len(text) > MAX_TEXT:
        yield f"{path} must have at most {MAX_TEXT} characters, got {len(text)}"
    if path in NAMES and _is_path_trick(text):
        yield f"{path} must be a name, not a path, got {_show(text)}"


def _is_path_trick(name: str) -> bool:
    pure = PurePosixPath(name)
    is_encoded = "\\" in name or name.startswith("~") or ENCODED_PATH.search(name)
    return pure.is_absolute() or ".." in pure.parts or bool(is_encoded)


def _contradictions(document: Document) -> Iterator[str]:
    config, trace = document.config, document.trace
    if config_digest(config) != document.config_sha256:
        yield "config_sha256 is not that of config: one of them was changed"
    num_keys = len(config) + sum(len(group) for group in config.values() if isinstance(group, dict))
    if num_keys > MAX_KNOBS:
        yield f"config must have at most {MAX_KNOBS} knobs and groups, got {num_keys}"
    if trace and trace.weights and set(trace.test) != {"loss", "accuracy"}:
        yield f"trace.test must have loss and accuracy, got {_show(' '.join(trace.test))}"


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = sorted(key for key, _ in pairs)
        twice = next(one for one, other in itertools.pairwise(names) if one == other)
        raise ValueError(f"the key {_show(twice)} stands twice in one object")
    return values


def _integer(digits: str) -> int | float:
    """Beyond 64 bits a float, as in most readers of JSON: Python's own takes long over long ones."""
    return int(digits) if len(digits) <= 19 else float(digits)


def _first(problems: Iterable[str]) -> list[str]:
    first = list(itertools.islice(problems, MAX_PROBLEMS + 1))
    return first if len(first) <= MAX_PROBLEMS else [*first[:MAX_PROBLEMS], "... and more"]


def _describe(problem: Any) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]]
    path = "".join(parts).removeprefix(".")
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {path}"
    if problem["type"].startswith("missing"):
        return f"{path} is missing"
    return f"{path}: {problem['msg']}, got {_show(problem['input'])}"


def _merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A copy, two levels deep, whose values are replaced by those of `over`; nothing is added."""
    merged = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for group, inner in over.items():
        if isinstance(merged.get(group), dict):
            merged[group] |= {k: v for k, v in inner.items() if k in merged[group]}
    return merged


def _show(value: Any) -> str:
    """A value in a message, shortened."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = ascii(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(text: str) -> str:
    return ascii(text)[1:-1][:80]
