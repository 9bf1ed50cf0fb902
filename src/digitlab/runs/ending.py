"""How a run ended, decided by the type of the exception that ended it. Knows no files and no sweep."""

import dataclasses
import traceback
from typing import Literal

from digitlab.errors import CutShort, DigitlabError, Diverged, Interrupted, NotSaved, Pruned


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a run that did not finish.

    is_final: the same run would end in the same way again, so that it is neither continued nor retried.
    error: one message. traceback: of a failure that digitlab does not raise to describe a training.
    spares_training: the training could have gone on; something outside it (the disk) did not.
    """

    state: Literal["INTERRUPTED", "PRUNED", "FAILED"]
    error: str
    is_final: bool = False
    traceback: str | None = None
    spares_training: bool = False

    @property
    def status(self) -> Literal["KILLED", "FAILED"]:
        """As the run is recorded."""
        return "FAILED" if self.state == "FAILED" else "KILLED"


def ending_of(error: BaseException) -> Ending:
    match error:
        case Interrupted() | CutShort():
            return Ending(state="INTERRUPTED", error=str(error), spares_training=True)
        case Pruned():
            return Ending(state="PRUNED", error=str(error), is_final=True)
        case Diverged():
            return Ending(state="FAILED", error=str(error), is_final=True)
        case _:
            is_ours = isinstance(error, DigitlabError)
            return Ending(
                state="FAILED",
                error=str(error) if is_ours else f"{type(error).__name__}: {error}",
                traceback="".join(traceback.format_exception(error)),
                spares_training=isinstance(error, OSError | NotSaved),
            )
