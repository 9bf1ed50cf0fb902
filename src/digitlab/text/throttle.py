"""At most once every so many seconds. Must not know what is done so seldom."""

import time


class Throttle:
    """Says when something is due again. seconds: between two times, unless `rest` says otherwise."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due_at = 0.0

    def passes(self) -> bool:
        """Whether it is due; if so, it is done now, and rests."""
        if not self.is_due():
            return False
        self.rest()
        return True

    def is_due(self) -> bool:
        return time.monotonic() >= self._due_at

    def rest(self, seconds: float | None = None) -> None:
        """Not due before that many seconds from now."""
        self._due_at = time.monotonic() + (self._seconds if seconds is None else seconds)
