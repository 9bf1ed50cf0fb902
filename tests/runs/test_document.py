"""The document of a run may come from anybody: it is read as data, or refused with the key's name."""

import copy
import dataclasses
import hashlib
import json
import shutil
import sys
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitlab import cli
from digitlab.config.components import lookup
from digitlab.errors import ConfigError
from digitlab.runs.document import Code, Document, RefusedDocument, dump, parse
from digitlab.runs.trace import Trace
from tests.support.cli import CHECKOUT

Values = dict[str, Any]
Place = tuple[str | int, ...]
SHELLS = "os.system subprocess.run subprocess.Popen subprocess.check_output git.cmd.Git.execute"
SHELLS += " mlflow.utils.process._exec_cmd torch.utils.collect_env.run"
FILES = "builtins.open pathlib.Path torch.load joblib.load pandas.read_pickle numpy.load pickle.load"
CODE = "builtins.exec builtins.eval sympy.sympify hydra.utils.get_object importlib.import_module"
KEYS = "_partial_ _args_ _recursive_ __reduce__ __class__ !!python/object/apply:os.system << ../../x"
KEYS += " /etc/x a/../x ${oc.env:SECRET} \x1b[2J \u202e \ud800 __init__.py/../x"
PATHS = r"../x a/../../x .. /abs \\host\x ..\x ~root/x %2e%2e/x %2E%2e%2F a%2fb ..%5Cx %252e%252e"
NUMBERS = [b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"9" * 5000]
FORMATS = [b"0", b"2", b"1.0", b"true", b'"1"', b"null", b"{}", b"[" * 900 + b"]" * 900]
MANY: Values = {f"learning{i}": {} for i in range(10_000)}
DEEP = {"x": {"x": {"x": {"x": {"x": {"x": {"x": 1}}}}}}}
LOCAL: list[Place] = [("config", "tracking", "uri"), ("config", "data", "root")]
NULLABLE = [*LOCAL, ("code", "patch"), ("trace",), ("config", "run_name")]
NULLABLE += [("config", "checkpoint", "every_steps"), ("config", "data", "order_seed")]
REFUSED: dict[Place, Any] = {  # though the type is right
    ("config", "study"): [*PATHS.split(), "x" * 201, DEEP],
    ("config", "run_name"): PATHS.split(),
    ("config", "optimizer", "learning_rate"): [-1.5, 0.0],
    ("config", "epochs"): [0, 10**18],
    ("config", "model"): [MANY, {"name": "logistic_regression", "py/object": "os.system"}],
    ("code", "commit"): ["--upload-pack=x", "HEAD", "a" * 41, "A" * 40, "", "a" * 39 + "\n"],
    ("trace", "test"): [{}, {"loss": "0x1p-1"}, {"accuracy": "0x1p-1", "f1": "0x1p-1"}, {"loss": 3}],
    ("trace", "step_losses"): [["1.x"], ["0x1p9999"], ["0" * 41]],
    ("machine", "host"): ["x" * 1001],
    ("config_sha256",): ["0" * 63],
}
OVERSIZED_OR_BROKEN = {
    "more than 16000000": [b" " * 16_000_001],
    "more than 200000 values": [b"[" * 8_000_000, b'{"a":' * 210_000, b"[" + b"{}," * 5_000_000],
    "nested too deeply": [b"[" * 150_000, b'{"a":' * 150_000],
    "step_losses[0]: ": [b'{"format": 1, "trace": {"step_losses": [' + b"0," * 30_000 + b"0]}}"],
    "seed must be a finite number": [b'{"format": 1, "seed": ' + b"1" * 15_000_000 + b"}"],
    "seed: ": [b'{"format": 1, "seed": 0.' + b"1" * 15_000_000 + b"}"],
    "study must have at most 1000": [b'{"format": 1, "study": "' + b"x" * 15_000_000 + b'"}'],
    "a key must be a plain name": [b'{"format": 1, "' + b"x" * 15_000_000 + b'": 1}'],
    "'a' stands twice": [b'{"a": 1, "b": 1, "a": 1}'],
    "not JSON": [b"", b"\xff\xfe", b"\xef\xbb\xbf{}", b"\x80\x04.", b"!!python/name:os", b"NULL"],
    "must be a JSON object": [b"[1]"],
    "format must be 1, got ": [b'{"format": %b, "from": "later"}' % value for value in FORMATS],
}
AUDITED = ("exec", "compile", "import", "open", "os.", "subprocess.", "socket.", "pickle.", "ctypes.")
heard: list[str] | None = None  # while somebody listens
sys.addaudithook(lambda event, _: None if heard is None else heard.append(event))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """record.json as a real run writes it."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(CHECKOUT / "conf", home / "conf")
    knobs = [f"tracking.uri=sqlite:///{home}/mlruns/mlflow.db", "run_name='größe 1'", "study=a/b"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITLAB_HOME", str(home))
        cli.main(["train", "epochs=2", "record.plots=never", *knobs])
    (file,) = (home / "mlruns" / "artifacts").rglob("record.json")
    return file.read_bytes()


@pytest.fixture
def real(content: bytes) -> Values:
    """As plain values, shortened where one entry is like the next."""
    values: Values = json.loads(content)
    code, trace = values["code"], values["trace"]
    code["files"] = {name: code["files"][name] for name in ("__init__.py", "sweep/launch.py")}
    del trace["step_losses"][1:], trace["epochs"][1:], trace["orders"][1:]
    return values


def problems(content: bytes, changes: Mapping[str, Any] | None = None) -> list[str]:
    """What it is refused for, in printable words; none if it is read, and survives the way back.

    Whatever else is raised passes through. The interpreter itself tells what was opened or run.
    """
    global heard
    lookup.everything()  # what this environment has registered is looked up once, whatever is read
    told = []
    heard = []
    try:
        document = parse(content)
        assert parse(dump(document).encode()) == document
        document.checked_config(changes)
    except (RefusedDocument, ConfigError) as refused:
        told = refused.problems or [""]
    finally:
        events, heard = heard, None
    assert [event for event in events if event.startswith(AUDITED)] == []
    assert all(text.isprintable() and 0 < len(text) < 300 for text in told)
    return told


def signed(values: Values) -> bytes:
    """As an attacker would: with the digest that fits."""
    if len(str(values.get("config_sha256"))) == 64:
        text = json.dumps(values.get("config"), sort_keys=True, separators=(",", ":"))
        values = values | {"config_sha256": hashlib.sha256(text.encode()).hexdigest()}
    return json.dumps(values).encode()


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Of everything inside, at any depth."""
    for key in (
        value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    ):
        yield (*place, key)
        yield from places(value[key], (*place, key))


def at(values: Any, place: Place) -> Any:
    return at(values[place[0]], place[1:]) if place else values


def put(values: Values, place: Place, value: Any) -> Values:
    found = copy.deepcopy(values)
    at(found, place[:-1])[place[-1]] = value
    return found


def names(told: list[str], place: Place) -> bool:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return any(path.removeprefix(".").removeprefix("config.") in text for text in told)


def test_a_real_document_survives_the_way_out_and_back(content: bytes) -> None:
    assert problems(content) == []
    document = parse(content)
    assert dump(document).encode() == content
    assert document.trace is not None
    assert len(document.trace.epochs) == document.config["epochs"] == 2
    assert problems(dump(dataclasses.replace(document, trace=None)).encode()) == []


def test_where_store_and_data_lay_is_not_taken_over(real: Values) -> None:
    document = parse(signed(put(real, ("config", "data", "root"), "/etc")))
    config = document.checked_config({"epochs": 3, "optimizer.learning_rate": 0.5})
    assert (config.tracking.uri, config.data.root) == (None, None)
    assert (config.epochs, config.optimizer.learning_rate) == (3, 0.5)
    assert document.config["data"]["root"] == "/etc", "the document itself is unchanged"
    assert problems(signed(real), {"seed.x": 1})[0].startswith("seed.x cannot be set")
    del real["config"]["optimizer"]
    assert names(problems(signed(real), {"optimizer.learning_rate": 1.0}), ("optimizer", "name"))


@pytest.mark.fault("F22")
def test_no_payload_at_any_place_is_run_or_resolved(real: Values, tmp_path: Path) -> None:
    file = str(tmp_path / "canary")
    arguments: Values = {SHELLS: [f"touch {file}"], FILES: [file, "w"], CODE: [f"open({file!r}, 'w')"]}
    found = [
        {"_target_": name, "_args_": a} for names, a in arguments.items() for name in names.split()
    ]
    found.append({"_target_": "torch.hub.load", "repo_or_dir": file, "source": "local"})
    found.append({"_target_": "pathlib.Path.touch", "self": found[8]})
    found += [{key: [f"touch {file}"]} for key in [*KEYS.split(), "", "x\n"]]
    for payload in found:
        key = ascii(next(iter(payload)))[1:-1]
        for place in [(), *places(real)]:
            if place:
                assert names(problems(signed(put(real, place, payload))), place), (place, payload)
            if isinstance(at(real, place), dict):
                at(extended := copy.deepcopy(real), place).update(payload)
                assert names(problems(signed(extended)), (*place, key)), (place, payload)
    assert not Path(file).exists()


@pytest.mark.fault("F24")
@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "\x1b[2J", "\x00", "\x9b", "\u202e", "\udc80"])
def test_text_to_resolve_or_to_trick_a_terminal_is_refused_anywhere(
    text: str, real: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    for place in places(real):
        told = problems(signed(put(real, place, f"a{text}b")))
        assert names(told, place) or (place == ("command",) and "$" in text), "that is shown as typed"
        assert "hunter2" not in str(told)


def test_what_looks_like_code_stays_the_text_it_is(real: Values) -> None:
    text = "!!python/object/apply:os.system ['touch canary']"
    for place in [("machine", "host"), ("versions", "torch"), ("config", "run_name"), ("command",)]:
        changed = signed(put(real, place, text))
        assert problems(changed) == []
        assert at(dataclasses.asdict(parse(changed)), place) == text
    for name in ("50 % dropout", "v1..2", "größe", "a/b", "lr=0.1, 25 epochs"):
        assert problems(signed(put(real, ("config", "study"), name))) == []


def test_a_value_of_the_wrong_type_is_named_at_any_place(real: Values) -> None:
    values: list[Any] = [None, True, 7, 7.5, "x", [], {}, [3], [[]], {"a": 3}, [{"a": 3}]]
    for place in places(real):
        kind = type(at(real, place))
        for value in values:
            fits = type(value) is kind or (kind is float and value == 7) or place in NULLABLE
            assert fits or names(problems(signed(put(real, place, value))), place), (place, value)
    for place in [*LOCAL, ("trace",), ("code", "patch")]:
        assert problems(signed(put(real, place, None))) == []


@pytest.mark.parametrize(("kind", "group"), [(Document, ()), (Code, ("code",)), (Trace, ("trace",))])
def test_a_key_that_is_missing_or_unknown_is_named(kind: Any, group: Place, real: Values) -> None:
    for field in dataclasses.fields(kind):
        if field.default is field.default_factory is dataclasses.MISSING:
            del at(rest := copy.deepcopy(real), group)[field.name]
            assert names(problems(json.dumps(rest).encode()), (*group, field.name))
    path = ".".join(map(str, (*group, "extra")))
    assert problems(signed(put(real, (*group, "extra"), 1))) == [f"unknown key {path}"]


@pytest.mark.parametrize("place", REFUSED, ids=".".join)
def test_a_value_that_is_dangerous_impossible_or_too_much_is_named(place: Place, real: Values) -> None:
    for value in REFUSED[place]:
        told = problems(signed(put(real, place, value)))
        assert names(told, place) or told[0].startswith("config must have at most 200"), value


@pytest.mark.fault("F21")
@pytest.mark.parametrize("place", [("seed",), ("config", "epochs"), ("trace", "step_losses", 0)])
def test_what_is_no_finite_number_is_named(place: Place, real: Values) -> None:
    for number in NUMBERS:
        text = signed(put(real, place, 123454321)).replace(b"123454321", number)
        assert names(problems(text), place)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("told", OVERSIZED_OR_BROKEN)
def test_what_is_oversized_or_broken_is_refused_soon_and_in_little_memory(told: str) -> None:
    for hostile in OVERSIZED_OR_BROKEN[told]:
        tracemalloc.start()
        found = problems(hostile)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert any(told in text for text in found)
        assert len(found) <= 21
        assert peak < 100e6


odd = st.sampled_from(["_target_", "${x}", "../x", "", "seed", "a" * 2000, "\x1b", "\ud800", "1", "é"])
key = odd | st.sampled_from([field.name for field in dataclasses.fields(Document)])
leaf = st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=5)
anything = st.recursive(
    leaf | odd, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(key, inner), max_leaves=8
)


@given(st.binary(max_size=200) | anything.map(json.dumps).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_whatever_comes_is_refused(content: bytes) -> None:
    assert problems(content)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_real_document_with_anything_changed_is_read_or_refused(content: bytes, data: Any) -> None:
    values = json.loads(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(list(places(values))))
        values = put(values, place, data.draw(anything))
        if data.draw(st.booleans()):
            del at(values, place[:-1])[place[-1]]
    problems(signed(values), {"seed": 1, "optimizer.learning_rate": 0.1})
    start, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 9))
    problems(content[:start] + data.draw(st.binary(max_size=5)) + content[start + length :])
