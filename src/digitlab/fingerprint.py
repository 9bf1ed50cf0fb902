"""What decides a run's result, as one hash: its knobs as resolved, the package's source, the data.

Two runs of one fingerprint have the same result, so the second need not run. Knows no runs.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from digitlab.checking import flatten, to_dict
from digitlab.config import Config

# Knobs that say where a run goes and how it is called, not what comes out.
WITHOUT_EFFECT = (
    *("study", "run_name", "tracking.uri", "data.root", "record.mlflow_model", "device"),
    "record.plots",
    "checkpoint.every_seconds",
    "checkpoint.every_steps",
)


def fingerprint(config: Config, *, device: str, data: Mapping[str, str]) -> str:
    """SHA-256 in hex. device: `cpu` or `cuda`, as resolved. data: digests of the four files."""
    knobs = {k: v for k, v in flatten(to_dict(config)).items() if k not in WITHOUT_EFFECT}
    files = {name: data[name] for name in sorted(data) if name.startswith(("train_", "test_"))}
    decisive = {"knobs": knobs, "device": device, "data": files, "source": source_digest()}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


@functools.cache
def source_files() -> dict[str, str]:
    """Every source file of the package with the start of its SHA-256: `{"training.py": "3f2a..."}`."""
    package = Path(__file__).parent
    return {
        file.relative_to(package).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in sorted(package.rglob("*.py"))
    }


@functools.cache
def source_digest() -> str:
    """SHA-256 over all source files of the package, as they were when first asked."""
    return hashlib.sha256(json.dumps(source_files(), sort_keys=True).encode()).hexdigest()
