"""YAML as digitlab reads and writes it: a plain scalar means what it means on the command line.

`010`, `1:30` and `yes` are text, not the 8, 90 and true of YAML 1.1, and `1e-3` is a number. What is
written is quoted wherever any reader of YAML, of either version, might take text for something else.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from digitlab.errors import ConfigError
from digitlab.text.files import read_file

MAX_BYTES = 1_000_000  # of a file: no configuration has more
INTEGER = r"(?:0|[1-9](?:_?[0-9])*)"
DECIMAL = rf"(?:{INTEGER}\.|{INTEGER}?\.[0-9](?:_?[0-9])*)"
FLOAT = rf"(?:{DECIMAL}|(?:{INTEGER}|{DECIMAL})[eE][-+]?[0-9](?:_?[0-9])*|\.inf|\.nan)"
TEXT = "tag:yaml.org,2002:str"
NOT_TEXT = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool")}
LINE_ENDS = set("\x85\u2028\u2029")
DIGITS = list("-+.0123456789")


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.MarkedYAMLError(problem=f"{twice} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Begins with the resolvers of YAML 1.1."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Escaped where it holds a line end of YAML 1.1: in single quotes that is read as a space."""
    style = '"' if LINE_ENDS & set(text) else None
    return dumper.represent_scalar(TEXT, text, style=style)


_Dumper.add_representer(str, _represent_text)

for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", rf"[-+]?{INTEGER}", DIGITS),
    ("float", rf"[-+]?{FLOAT}", DIGITS),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), first)
# Whatever else begins like a number is one to some reader: 1e3, 0o17, 2024-01-01; a lone y is true.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+.0-9]"), DIGITS)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]\Z"), list("yYnN"))


def read(file: Path, texts: Iterable[str] = ()) -> dict[str, Any]:
    """The mapping in a file, with or without a byte-order mark; an empty file is an empty one.

    texts: see `load`.

    Raises:
        ConfigError: it cannot be read, is no YAML, or holds something else.
    """
    text = text_of(file)
    try:
        values = load(text, texts)
    except ConfigError as error:
        raise ConfigError([f"{file}: {problem}" for problem in error.problems]) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else "one value"
        raise ConfigError([f"{file} must hold names with values, `epochs: 20`, got {kind}"])
    return values


def text_of(file: Path) -> str:
    try:
        return read_file(file, MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([f"{file} is no text in UTF-8"]) from None
    except OSError as error:
        raise ConfigError([f"cannot read {file}: {error.strerror}"]) from None


def load(text: str, texts: Iterable[str] = ()) -> Any:
    """What a text means. Raises ConfigError if it is no YAML.

    texts: dotted paths at which `12e34` and `true` are text, as they are typed on the command line.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        for path in texts:
            node = _at(root, path)
            if isinstance(node, yaml.ScalarNode) and node.tag in NOT_TEXT:
                node.tag = TEXT
        return loader.construct_document(node=root)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise ConfigError([f"it is no YAML: {reason}"]) from None
    except RecursionError:
        raise ConfigError(["it is nested too deeply"]) from None


def _at(node: yaml.Node | None, path: str) -> yaml.Node | None:
    for name in path.split("."):
        inner = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in inner if key.value == name), None)
    return node


def dump(values: Any) -> str:
    """Text that `load`, and any other reader of YAML, reads as the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
