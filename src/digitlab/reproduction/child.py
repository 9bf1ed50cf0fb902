"""The fresh process that runs a record again, from this side (see repeating.py for the other)."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digitlab.config import project
from digitlab.reproduction.verdict import Cannot
from digitlab.text.notebook import CellBar
from digitlab.text.terminal import in_notebook, say

FORCED = ("FORCE_COLOR", "CLICOLOR_FORCE")  # by which a kernel has libraries take it for a terminal


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
            stderr=subprocess.PIPE if in_notebook() else None,  # that of a kernel nobody sees
            text=True,
            env={
                **{name: value for name, value in environment.items() if name not in FORCED},
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "DIGITLAB_HOME": str(project.home()),
            },
        )

        self._relay = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> "Child":
        self._relay.start()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()
        self._relay.join()

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

    def _show(self) -> None:
        """In a notebook: how far it is as a bar in the cell, anything else as it is said."""
        bar, last = CellBar(), ""
        for line in self._process.stderr or ():
            if epoch := re.match(r"epoch (\d+)/(\d+) ", line):
                last = line.rstrip()
                bar.show(int(epoch[1]), int(epoch[2]), last)
            else:
                say(line.rstrip())
        bar.end(last)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its answer, or the lack of one, says why
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
