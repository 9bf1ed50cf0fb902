"""An environment for each peer, in .venv/peers/: built once, and kept until its requirements change.

What a peer requires and digitlab's own environment has at the very same version is taken from there, by
a .pth file: torch and MLflow would be downloaded again for nothing. Both sides then run the same files
of them, and the peer's own packages come first on its path; so nothing is measured wrongly by it.
"""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.processes import CHECKOUT

REQUIREMENTS = Path(__file__).parent / "requirements"
ENVIRONMENTS = CHECKOUT / ".venv" / "peers"
MINUTES = 10  # for one installation


class InstallationError(Exception):
    """A peer's environment cannot be built here."""


def pinned(name: str) -> dict[str, str]:
    """The version of each package that a peer requires."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, whether that is there or not."""
    return ENVIRONMENTS / name / "bin" / "python"


def is_built(name: str) -> bool:
    stamp = ENVIRONMENTS / name / "built"
    return stamp.exists() and stamp.read_text() == _stamp(name)


def build(name: str) -> Path:
    """Build the environment if need be; the interpreter in it.

    Raises:
        InstallationError: with the last line that uv said.
    """
    folder = ENVIRONMENTS / name
    if not is_built(name):
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--quiet", "--python", sys.executable, str(folder))
        own = [f"{package}=={version}" for package, version in pinned(name).items()]
        if missing := [requirement for requirement in own if not _is_shared(requirement)]:
            _uv(
                *("pip", "install", "--quiet", "--no-deps", "--compile-bytecode"),
                *("--python", str(python_of(name)), *missing),
            )
        (site,) = folder.glob("lib/python3*/site-packages")
        (site / "shared.pth").write_text(f"{_shared_folder()}\n")
        (folder / "built").write_text(_stamp(name))
    return python_of(name)


def _stamp(name: str) -> str:
    return f"{_shared_folder()}\n{(REQUIREMENTS / f'{name}.txt').read_text()}"


def _shared_folder() -> Path:
    """Where digitlab's own environment has its packages."""
    return Path(str(importlib.metadata.distribution("torch").locate_file(""))).resolve()


def _is_shared(requirement: str) -> bool:
    package, _, version = requirement.partition("==")
    try:
        return importlib.metadata.version(package) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def _uv(*arguments: str) -> None:
    try:
        subprocess.run(
            [sys.executable, "-m", "uv", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=60 * MINUTES,
        )
    except subprocess.CalledProcessError as error:
        raise InstallationError((error.stderr.strip() or "uv failed").splitlines()[-1]) from None
    except subprocess.TimeoutExpired:
        raise InstallationError(f"uv took more than {MINUTES} minutes") from None
