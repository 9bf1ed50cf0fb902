"""SIGINT, SIGTERM and SIGHUP as one exception, at a moment when nothing is half done."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from digitlab.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ONE_REQUEST_SECONDS = 0.5  # `timeout` signals its child and then the whole group, systemd TERM and HUP


class Interrupts:
    """While entered, the first signal raises Interrupted and a later one ends the process at once.

    A signal within half a second of the first is the same request. Inside `deferred()` the first one
    waits for the next `check()`: the training loop calls it before each step, so that a run ends within
    a step and its weights are whole.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._received_at = 0.0
        self._is_deferred = False

    def __enter__(self) -> Self:
        # A signal that the parent process ignores (nohup) stays ignored.
        heeded = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        self._previous = {s: signal.signal(s, self._handle) for s in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def signal_number(self) -> int | None:
        """The signal that was received, if any."""
        return self._received

    def request(self, number: int) -> None:
        """As if this signal had been received; takes effect at the next `check()`. Thread-safe."""
        self._received = self._received or number

    def check(self) -> None:
        if self._received is not None:
            raise Interrupted(self._received)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        before, self._is_deferred = self._is_deferred, True
        try:
            yield
        finally:
            self._is_deferred = before

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._received is not None:
            if time.monotonic() - self._received_at < ONE_REQUEST_SECONDS:
                return
            if _is_in_foreground():
                os.write(2, b"\x1b[?25h\nstopped at once; the same command again goes on\n")
            os._exit(128 + number)  # the record says RUNNING; the next command marks it KILLED
        self._received, self._received_at = number, time.monotonic()
        if _is_in_foreground():
            os.write(2, b"\nstopping; once more to stop at once\n")
        if not self._is_deferred:
            raise Interrupted(number)


def _is_in_foreground() -> bool:
    """Whether this process may write to the terminal of its standard error: a worker may not."""
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return False
