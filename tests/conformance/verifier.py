"""A second verifier of records, written from docs/record.md alone: it takes Python's standard library.

    python tests/conformance/verifier.py RECORDED.json [REPEATED.json]

says whether a record is refused, or the verdict on two.
"""

import hashlib
import itertools
import json
import math
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Values = dict[str, Any]
Check = Callable[[Any], object]

MAX_BYTES, MAX_VALUES, MAX_DEPTH, MAX_TEXT, MAX_KNOBS = 16_000_000, 200_000, 8, 1000, 200
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./ -]{0,99}|_[A-Za-z0-9_]{0,99}\.py")
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
PATH = re.compile(r"/|~|.*\\|(.*/)?\.\.(/|$)|.*%(25)*(2e|2f|5c)", re.IGNORECASE | re.DOTALL)

# Leaves of config that decide no number, and those that belong to rounding.
WITHOUT_EFFECT = (
    *("study", "run_name", "tracking.uri", "data.root", "data.path", "device"),
    *("record.mlflow_model", "record.plots", "checkpoint.every_seconds", "checkpoint.every_steps"),
)
OF_ROUNDING = ("threads", "arithmetic")
# Files and folders that decide no number; files in them that do.
WITHOUT_NUMBERS = (
    *("__init__.py", "errors.py", "text/", "config/", "tracking/", "runs/", "results/", "sweep/"),
    *("reproduction/", "inference/", "api/", "cli/"),
    # from before there were folders
    *("addresses.py", "terminal.py", "project.py", "provenance.py", "fingerprint.py", "checking.py"),
    *("composition.py", "overrides.py", "given_config.py", "yaml_text.py", "completion.py", "cli.py"),
    *("commands.py", "command_line/", "record.py", "line_files.py", "remains.py", "document.py"),
    *("trace.py", "answers.py", "artifacts.py", "serving.py", "reaping.py", "ports.py", "plots.py"),
    *("pictures.py", "opening.py", "experiment.py", "resuming.py", "interrupts.py", "progress.py"),
    *("doctor.py", "user_interface.py", "looking.py", "showing.py", "tables.py", "estimates.py"),
    *("comparison/", "reporting/"),
)
DECIDING = (*("config/schema.py", "config/data_schema.py", "config/kinds.py", "runs/checkpoints.py"),)
BEFORE_FOLDERS = "training.py"
TYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "U8": "uint8", "I64": "int64"}


class RefusedError(Exception):
    """A record, or a file of an archive, with the path and the reason."""


def read(content: bytes) -> Values:
    """The record. Raises RefusedError, as the page's "What is refused" has it."""
    if len(content) > MAX_BYTES or sum(map(content.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise RefusedError("it is too large")
    try:
        values = json.loads(content.decode(), object_pairs_hook=_once, parse_int=_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"it is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise RefusedError("it is no object")
    if type(values.get("format")) is not int or values["format"] != 1:
        raise RefusedError("format is not 1")
    _refuse_what_is_not_plain(values, "", 1)
    _refuse_other_fields(values, RECORD, RECORD_OPTIONAL, "")
    _refuse_other_fields(values["code"], CODE, (), "code.")
    for name, component in values.get("components", {}).items():
        _refuse_other_fields(component, COMPONENT, (), f"components.{name}.")
    if values["trace"] is not None:
        _refuse_other_fields(values["trace"], TRACE, TRACE_OPTIONAL, "trace.")
        if has_result(values) and set(values["trace"].get("test", {})) != {"loss", "accuracy"}:
            raise RefusedError("trace.test has not loss and accuracy")
    config = values["config"]
    if config_digest(config) != values["config_sha256"]:
        raise RefusedError("config_sha256 is not that of config")
    if (
        len(config) + sum(len(inner) for inner in config.values() if isinstance(inner, dict))
        > MAX_KNOBS
    ):
        raise RefusedError("config has too many knobs")
    return values


def has_result(record: Values) -> bool:
    return bool(record["trace"] and record["trace"].get("weights"))


def _once(pairs: list[tuple[str, Any]]) -> Values:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= 19 else float(digits)


def _refuse_what_is_not_plain(value: Any, path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RefusedError(f"{path}: nested too deeply")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not KEY.fullmatch(key) or ".." in key:
                raise RefusedError(f"{path}: {key!a} is no plain key")
            _refuse_what_is_not_plain(inner, f"{path}.{key}".lstrip("."), depth + 1)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _refuse_what_is_not_plain(inner, f"{path}[{place}]", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise RefusedError(f"{path}: no finite number")
    elif isinstance(value, str) and not _is_plain_text(value, path):
        raise RefusedError(f"{path}: no plain text")


def _is_plain_text(text: str, path: str) -> bool:
    if UNPRINTABLE.search(text):
        return False
    if path == "command":
        return True
    if path in ("config.study", "config.run_name") and PATH.match(text):
        return False
    return len(text) <= MAX_TEXT and "${" not in text


def _refuse_other_fields(
    values: Values, checks: Mapping[str, Check], optional: Sequence[str], path: str
) -> None:
    for name in values.keys() - checks.keys():
        raise RefusedError(f"{path}{name}: unknown")
    for name, check in checks.items():
        if name not in values and name not in optional:
            raise RefusedError(f"{path}{name}: missing")
        if name in values and not check(values[name]):
            raise RefusedError(f"{path}{name}: of another type")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _like(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value)


def _integer(low: float = -math.inf, high: float = math.inf) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _objects_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _hex_float(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(value) <= 40 and isinstance(float.fromhex(value), float)
    except (ValueError, OverflowError):
        return False


DIGEST = "[0-9a-f]{64}"
TEXTS = _objects_of(_text)
CODE: dict[str, Check] = {
    "version": _text,
    "commit": _like(f"[0-9a-f]{{40}}|{DIGEST}|unknown"),
    "dirty": _like("true|false|unknown"),
    "patch": _or_null(_like(DIGEST)),
    "source": _text,
    "files": TEXTS,
}
COMPONENT: dict[str, Check] = {"name": _text, "distribution": _text, "version": _text, "files": TEXTS}
TRACE: dict[str, Check] = {
    "initial_weights": _like(f"({DIGEST})?"),
    "orders": _list_of(_like(f"({DIGEST})?")),
    "step_losses": _list_of(_hex_float),
    "epochs": _list_of(_objects_of(_hex_float)),
    "weights": _like(f"({DIGEST})?"),
    "test": _objects_of(_hex_float),
    "predictions": _like(f"({DIGEST})?"),
    "num_test_images": _integer(),
}
TRACE_OPTIONAL = ("weights", "test", "predictions", "num_test_images")
RECORD: dict[str, Check] = {
    "format": _integer(1, 1),
    "command": _text,
    "config": _object,
    "config_sha256": _text,
    "seed": _integer(0, 2**63 - 1),
    "code": _object,
    "components": _objects_of(_object),
    "data": TEXTS,
    "device": _like("cpu|cuda"),
    "threads": _integer(1, 1024),
    "arithmetic": TEXTS,
    "canary": _text,
    "versions": TEXTS,
    "machine": TEXTS,
    "reproducible": lambda value: isinstance(value, bool),
    "trace": _or_null(_object),
    "image_shape": lambda value: _list_of(_integer(1, 256))(value) and len(value) == 3,
    "num_classes": _integer(2, 1000),
}
RECORD_OPTIONAL = ("components", "image_shape", "num_classes")


def _sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def config_digest(config: Values) -> str:
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return _sha256(text.encode())


def source_digest(files: Mapping[str, str]) -> str:
    return _sha256(json.dumps(files, sort_keys=True).encode())


def file_digest(content: bytes) -> str:
    """As code.files has it."""
    return _sha256(content)[:16]


def indices_digest(indices: Sequence[int]) -> str:
    """Of an epoch's order, or of the images of validation."""
    return _sha256(struct.pack(f"<{len(indices)}q", *indices))


def predictions_digest(classes: Sequence[int]) -> str:
    kind = "B" if max(classes, default=0) < 256 else "H"
    return _sha256(struct.pack(f"<{len(classes)}{kind}", *classes))


def array_digest(shape: Sequence[int], values: bytes) -> str:
    """Of images or labels."""
    return _sha256(str(tuple(shape)).encode(), values)


def class_names_digest(class_names: Sequence[str]) -> str:
    return _sha256(json.dumps(list(class_names)).encode())


def weights_digest(safetensors: bytes) -> str:
    """Of a file: the length of a JSON header in 8 bytes, the header, then the tensors' bytes."""
    (length,) = struct.unpack("<Q", safetensors[:8])
    header, content = json.loads(safetensors[8 : 8 + length]), safetensors[8 + length :]
    parts = []
    for name, tensor in sorted(header.items()):
        if name != "__metadata__":
            start, end = tensor["data_offsets"]
            kind = f"torch.{TYPES[tensor['dtype']]}"
            parts += [f"{name}{tuple(tensor['shape'])}{kind}".encode(), content[start:end]]
    return _sha256(*parts)


def judge(recorded: Values, repeated: Values) -> tuple[str, str]:
    """The verdict, and the start of its cause."""
    if not (has_result(recorded) and has_result(repeated)):
        return "CANNOT", ""
    changes = list(_changes(recorded, repeated))
    only_code = all(change.startswith("code: ") for change in changes)
    before, now = recorded["trace"], repeated["trace"]
    first = next(_differences(before, now), None)
    if first is None and only_code:
        return "IDENTICAL", ""
    if first and only_code and _rounding_may_differ(recorded, repeated) and _agree(before, now):
        return "SAME COMPUTATION, OTHER ROUNDING", first
    return "DIFFERENT", changes[0] if changes else first or ""


def _changes(recorded: Values, repeated: Values) -> Iterator[str]:
    before, now = _leaves(recorded["config"]), _leaves(repeated["config"])
    for path in {**before, **now}:
        is_open = path not in (*WITHOUT_EFFECT, *OF_ROUNDING)
        if is_open and before.get(path) != now.get(path):
            yield f"configuration: {path}"
    yield from (f"code: {file}" for file in _changed_files(recorded, repeated))
    data = _differing(recorded["data"], repeated["data"])
    yield from (f"data: {name}" for name in data if name != "validation_indices")
    if "validation_indices" in data:
        yield "split"


def _leaves(values: Values, prefix: str = "") -> Values:
    leaves: Values = {}
    for key, value in values.items():
        is_object = isinstance(value, dict)
        leaves |= _leaves(value, f"{prefix}{key}.") if is_object else {f"{prefix}{key}": value}
    return leaves


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def _changed_files(recorded: Values, repeated: Values) -> Iterator[str]:
    before, now = recorded["code"]["files"], repeated["code"]["files"]
    if (BEFORE_FOLDERS in before) != (BEFORE_FOLDERS in now):
        yield "all files"
    else:
        yield from filter(decides_numbers, _differing(before, now))
    ours, theirs = recorded.get("components", {}), repeated.get("components", {})
    for group in sorted({*ours, *theirs}):
        files = [side.get(group, {}).get("files", {}) for side in (ours, theirs)]
        yield from _differing(*files)


def decides_numbers(file: str) -> bool:
    is_without = any(
        file.startswith(name) if name.endswith("/") else file == name for name in WITHOUT_NUMBERS
    )
    return file in DECIDING or not is_without


def _differences(before: Values, now: Values) -> Iterator[str]:
    if before["initial_weights"] != now["initial_weights"]:
        yield "the initial weights"
    if epoch := _first_place(before["orders"], now["orders"]):
        yield f"the order of the images in epoch {epoch}"
    if step := _first_place(before["step_losses"], now["step_losses"]):
        yield f"the loss of step {step}"
    if epoch := _first_place(before["epochs"], now["epochs"]):
        yield f"epoch {epoch}"
    if before["weights"] != now["weights"]:
        yield "the final weights"
    if before.get("predictions", "") != now.get("predictions", ""):
        yield "the predictions of the test images"
    if before["test"] != now["test"]:
        yield "the test metrics"


def _first_place(before: Sequence[Any], now: Sequence[Any]) -> int | None:
    pairs = enumerate(itertools.zip_longest(before, now), start=1)
    return next((place for place, (one, other) in pairs if one != other), None)


def _rounding_may_differ(recorded: Values, repeated: Values) -> bool:
    before, now = ({"product": "torch.mm"} | each["arithmetic"] for each in (recorded, repeated))
    return bool(_differing(before, now)) or recorded["canary"] != repeated["canary"]


def _agree(before: Values, now: Values) -> bool:
    losses = [list(map(float.fromhex, trace["step_losses"])) for trace in (before, now)]
    accuracies = [float.fromhex(trace["test"]["accuracy"]) for trace in (before, now)]
    band = 0.005 * math.sqrt(10_000 / max(before.get("num_test_images", 0), 1))
    return (
        len(losses[0]) == len(losses[1])
        and all(map(_are_near, losses[0][:10], losses[1][:10]))
        and all(map(str.__eq__, before["orders"], now["orders"]))
        and abs(accuracies[0] - accuracies[1]) <= band
    )


def _are_near(one: float, other: float) -> bool:
    return one == other or abs(one - other) / max(abs(one), abs(other)) <= 1e-5


def main(files: Sequence[str]) -> None:
    try:
        records = [read(Path(file).read_bytes()) for file in files]
    except RefusedError as refused:
        sys.exit(f"refused: {refused}")
    if len(records) == 2:
        print(*judge(*records), sep=": ")


if __name__ == "__main__":
    main(sys.argv[1:])
