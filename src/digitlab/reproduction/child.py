"""The fresh process that runs a record again, from this side (see repeating.py for the other)."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digitlab.config import project
from digitlab.reproduction.verdict import Cannot


class Child:
    """The process that repeats a run, as a context. It reports what it would run, then waits to go.

    code: a checkout whose code it runs; None: that of this environment.
    """

    def __init__(self, code: Path | None, environment: Mapping[str, str]) -> None:
        paths = [*([str(code / "src")] if code else []), environment.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "digitlab.reproduction.repeating"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **environment,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "DIGITLAB_HOME": str(project.home()),
            },
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()

    def ask(self, request: Mapping[str, Any]) -> None:
        self._write(json.dumps(request))

    def go(self) -> None:
        self._write("go")

    def answer(self, event: str) -> dict[str, Any]:
        """Its next message. Raises Cannot if that is of another event, or there is none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        message: dict[str, Any] = json.loads(line) if line else {}
        if message.get("event") == event:
            return message
        if message.get("event") == "refused":
            raise Cannot(" ".join(message["message"].splitlines()))
        code = self._process.wait()
        raise Cannot(f"the process that ran it ended with exit code {code}: see above")

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its answer, or the lack of one, says why
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
