"""How far something has come, told on standard error if it takes more than a moment."""

from digitlab.text.terminal import say
from digitlab.text.throttle import Throttle

EVERY_SECONDS = 2.0


class Progress:
    """`WHERE: 3,000 of 10,000 pictures read`, now and then. what: `pictures read`."""

    def __init__(self, where: str, total: int, what: str) -> None:
        self._where, self._total, self._what = where, total, what
        self._throttle = Throttle(EVERY_SECONDS)
        self._throttle.rest()

    def tell(self, done: int) -> None:
        if self._throttle.passes():
            say(f"{self._where}: {done:,} of {self._total:,} {self._what}")
