"""The wheel in an environment of its own, as a new user has it."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.support.cli import CHECKOUT, heed_interrupts


class Installed:
    """An environment with the wheel alone, in a folder that is a git repository of somebody's own.

    All other packages are borrowed: an environment of its own would take 6 GB.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.where = folder, folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
        self.install(CHECKOUT)
        (packages,) = folder.glob(".venv/lib/python*/site-packages")
        (packages / "borrowed.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
        self.git("init", "-q")
        (folder / "thesis.txt").write_text("mine\n")
        self.git("add", "thesis.txt")
        self.git("commit", "-q", "-m", "mine")

    def install(self, source: Path) -> None:
        """Build a package's wheel and install it."""
        dist = self.folder / "dist" / source.name
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
        subprocess.run(build, cwd=source, check=True, capture_output=True)
        newest = max(dist.glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime_ns)
        self.pip("install", "--no-deps", "--no-index", str(newest))

    def pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "--quiet"]
        subprocess.run([*command, *arguments], check=True)

    @property
    def python(self) -> Path:
        return self.folder / ".venv" / "bin" / "python"

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.python.parent}:/usr/bin:/bin"
        kept = {k: v for k, v in os.environ.items() if k in ("TMPDIR", "DIGITLAB_DATA")}
        return {**kept, "PATH": path, "HOME": str(self.folder), "LANG": "C.UTF-8"}

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        subprocess.run(["git", *identity, *arguments], cwd=self.folder, check=True)

    def run(self, line: str, *, code: int = 0) -> str:
        """The output of a command line, typed in the folder in which the last `cd` has ended."""
        if line.startswith("cd "):
            self.where = self.where / line.removeprefix("cd ")
            return ""
        command = ["bash", "-c", line]
        done = subprocess.run(
            command, cwd=self.where, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python.with_name("digitlab"), *arguments],
            cwd=self.where,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )
