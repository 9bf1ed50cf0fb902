"""What decides a run's result: its knobs as resolved, the code that computes it, libraries, data.

Two runs of one fingerprint have the same result, so the second need not run. The line between source
that decides a number and source that does not is drawn here, by file name, for records of any age.
A fingerprint covers what today's code does (see code_form.py), a record the bytes of its files.
"""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from digitlab.config.checking import flatten, to_dict
from digitlab.config.code_form import form_digests
from digitlab.config.components.lookup import chosen
from digitlab.config.project import PACKAGE
from digitlab.config.schema import Config

# Knobs that say where a run goes and how it is called, not what comes out.
WITHOUT_EFFECT = (
    *("study", "run_name", "tracking.uri", "data.root", "data.path", "device"),
    "record.mlflow_model",
    "record.plots",
    "checkpoint.every_seconds",
    "checkpoint.every_steps",
)

# Rooms and files that decide no number: they describe, record, show, compare, or call what computes.
# Every other file decides, one of a user's own too. tests/test_house_rules.py checks both.
WITHOUT_NUMBERS = (
    *("__init__.py", "errors.py", "text/", "config/", "tracking/", "runs/", "results/", "sweep/"),
    *("reproduction/", "inference/", "api/", "cli/"),
)
DECIDING = (
    "config/schema.py",
    "config/data_schema.py",
    "config/kinds.py",
    "runs/checkpoints.py",
)  # of these rooms
# Of records from before there were rooms: what decided no number then.
FLAT_WITHOUT_NUMBERS = (
    *("addresses.py", "terminal.py", "project.py", "provenance.py", "fingerprint.py"),
    *("checking.py", "composition.py", "overrides.py", "given_config.py", "yaml_text.py"),
    *("completion.py", "cli.py", "commands.py", "command_line/"),
    *("record.py", "line_files.py", "remains.py", "document.py", "trace.py", "answers.py"),
    *("artifacts.py", "serving.py", "reaping.py", "ports.py"),
    *("plots.py", "pictures.py", "opening.py", "experiment.py", "resuming.py", "interrupts.py"),
    *("progress.py", "doctor.py", "user_interface.py", "looking.py"),
    *("showing.py", "tables.py", "estimates.py", "comparison/", "reporting/"),
)
FLAT = "training.py"  # a file that every such record names
MOVED = "all files (moved since)"
LIBRARIES = ("torch", "numpy")  # that compute the numbers


def fingerprint(config: Config, *, device: str, data: Mapping[str, str]) -> str:
    """SHA-256 in hex. device: `cpu` or `cuda`, as resolved. data: digests of images, labels, names."""
    knobs = {k: v for k, v in flatten(to_dict(config)).items() if k not in WITHOUT_EFFECT}
    files = {name: data[name] for name in sorted(data) if name != "validation_indices"}
    decisive = {
        "knobs": knobs,
        "device": device,
        "data": files,
        "code": code_digest(),
        "versions": library_versions(),
    }
    if own := own_source(to_dict(config)):
        decisive["components"] = own
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def own_source(config: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 over what the user's components do that it names, by group: `{"model": ...}`."""
    return {group: component.form_digest for group, component in chosen(config).items()}


@functools.cache
def code_digest() -> str:
    """SHA-256 over what today's deciding files do: their comments and formatting change nothing."""
    files = {name: (PACKAGE / name).read_bytes() for name in source_files() if decides_numbers(name)}
    return hashlib.sha256(json.dumps(form_digests(files), sort_keys=True).encode()).hexdigest()


def decides_numbers(name: str) -> bool:
    """Whether a source file, by its path in the package, can change a number of a result."""
    without = (*WITHOUT_NUMBERS, *FLAT_WITHOUT_NUMBERS)
    return name in DECIDING or not any(
        name == one or (one.endswith("/") and name.startswith(one)) for one in without
    )


def deciding_digest(files: Mapping[str, str]) -> str:
    """SHA-256 over the bytes of files that decide numbers, of today's `source_files` or a record's."""
    deciding = {name: digest for name, digest in files.items() if decides_numbers(name)}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def differing_source(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files that decide numbers and differ, or are on one side only; or `MOVED`."""
    if were_moved(before, now):
        return [MOVED]
    names = sorted({*before, *now})
    return [name for name in names if decides_numbers(name) and before.get(name) != now.get(name)]


def were_moved(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether one of the two is from before there were rooms, so that no file has its name in both."""
    return (FLAT in before) != (FLAT in now)


@functools.cache
def library_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


@functools.cache
def source_files() -> dict[str, str]:
    """Every source file of the package with the start of its SHA-256: `{"errors.py": "3f2a..."}`."""
    return {
        file.relative_to(PACKAGE).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in sorted(PACKAGE.rglob("*.py"))
    }


@functools.cache
def source_digest() -> str:
    """SHA-256 over all source files of the package, as they were when first asked."""
    return hashlib.sha256(json.dumps(source_files(), sort_keys=True).encode()).hexdigest()
