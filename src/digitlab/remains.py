"""What a crash leaves in mlruns/ that nothing will ever use.

These are record folders that hold no run, and files that were being written.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

IN_USE_SECONDS = 60  # what is younger may be in the making


def find_remains(mlruns: Path) -> list[Path]:
    folders = [folder for folder in mlruns.glob("records/*/") if not any(folder.glob("run.json*"))]
    patterns = ("", "records/*/", "records/*/artifacts/", "sweeps/*/")
    files = [file for pattern in patterns for file in mlruns.glob(f"{pattern}.*.tmp")]
    files = [file for file in files if not any(folder in file.parents for folder in folders)]
    return [path for path in [*folders, *files] if _age_seconds(path) > IN_USE_SECONDS]


def remove_remains(remains: Sequence[Path]) -> None:
    for path in remains:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _age_seconds(path: Path) -> float:
    return time.time() - path.stat().st_mtime
