"""YAML that is written reads back, by whatever reader; a plain value is that of the command line."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from digitlab.config.overrides import Parser
from digitlab.errors import ConfigError
from digitlab.text import yaml_text

WORDS = (
    "null Null ~ true True yes no on off y N nan inf .inf 12e34 1e3 0o17 010 0x1F 1_000 1:30 = << - ?"
)
WORDS += (
    " 2024-01-01 2024-01-01T10:00:00 2024-01 1.5.2 .5 5. +1 -0 [a] {a} a:b #a a#b !a &a *a | > % @ `"
)
texts = (
    st.text(max_size=12)
    | st.sampled_from([*WORDS.split(), "", " a", "a: b", "a #b", "größe", "'", '"', "a\nb"])
    | st.text("0123456789+-._:eExonTZ", min_size=1, max_size=10)
)
scalars = texts | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
typed = st.text("0123456789+-._eEx", min_size=1, max_size=8) | st.sampled_from(
    ["true", "False", "null", "NULL", "yes", "no", "on", "off", "010", "0o17", "0x1F", "1_000", "1e-3"]
)


@example({"a": "\x85", "b": "one\u2028two\u2029"})
@given(st.dictionaries(st.sampled_from("abcdef"), scalars | st.none() | st.lists(scalars, max_size=3)))
@settings(max_examples=500, deadline=None)
def test_what_is_written_is_read_back_by_every_reader(values: Any) -> None:
    text = yaml_text.dump(values)
    assert same(yaml_text.load(text), values)
    assert same(yaml.safe_load(text), values)
    assume(not any("${" in str(value) for value in values.values()))
    assert same(OmegaConf.to_container(OmegaConf.create(text)), values)


def same(one: Any, other: Any) -> bool:
    return one == other and repr(one) == repr(other)  # 1, 1.0 and true are not the same


@given(typed)
@settings(max_examples=500, deadline=None)
def test_a_plain_value_is_what_it_is_on_the_command_line(text: str) -> None:
    try:
        ours = yaml_text.load(f"seed: {text}")["seed"]
    except (ConfigError, TypeError, KeyError):
        assume(False)  # a sign of YAML's own, such as -
    hydras = Parser().parse(f"seed={text}").value()
    assume(not (isinstance(hydras, float) and math.isinf(hydras)))
    assert same(ours, hydras)


def test_a_plain_value_where_text_belongs_is_that_text() -> None:
    text = "study: 12e34\nrun_name: true\ntracking: {uri: null}\nseed: 7\nother: {study: 7}\n"
    read = {"study": "12e34", "run_name": "true", "tracking": {"uri": None}, "seed": 7}
    paths = ["study", "run_name", "tracking.uri", "data.root", "seed.study"]
    assert yaml_text.load(text, paths) == {**read, "other": {"study": 7}}
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        yaml_text.load("study: !!python/name:os.system x", paths)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x80\x81", "is no text in UTF-8"),
        (b"- 1\n", "must hold names with values, `epochs: 20`, got a list"),
        (b"7\n", "got one value"),
        (b"a: [1\n", "it is no YAML: "),
        (b"a: 1\na: 2\n", "a stands twice"),
        (b"a: !!python/object/apply:os.system [x]\n", "could not determine a constructor"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_file_that_holds_no_values_is_one_line_with_its_name(
    tmp_path: Path, content: bytes, told: str
) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        yaml_text.read(file)
    (problem,) = caught.value.problems
    assert problem.startswith(str(file))
    assert told in problem
    assert "\n" not in problem
