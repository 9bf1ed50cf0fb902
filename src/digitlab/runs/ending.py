"""How a run ended, by the type of the exception that ended it, and its record's end. Knows no sweep."""

import contextlib
import dataclasses
import traceback
from typing import Literal

from digitlab.config.components import lookup
from digitlab.errors import CutShort, DigitlabError, Diverged, Interrupted, NotSaved, Pruned
from digitlab.tracking import names
from digitlab.tracking.run_folder import RunFolder


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a run that did not finish.

    is_final: the same run would end in the same way again: it is neither continued nor retried.
    traceback: of a failure that is none of the states of a training. spares_training: of a failure of
    the disk, after which the training can go on even without a checkpoint.
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
            return Ending(state="INTERRUPTED", error=str(error))
        case Pruned():
            return Ending(state="PRUNED", error=str(error), is_final=True)
        case Diverged():
            return Ending(state="FAILED", error=str(error), is_final=True)
        case _:
            is_ours = isinstance(error, DigitlabError)
            return Ending(
                state="FAILED",
                error=str(error) if is_ours else lookup.what_failed(error),
                traceback="".join(traceback.format_exception(error)),
                spares_training=isinstance(error, OSError | NotSaved),
            )


def record_ending(record: RunFolder, error: BaseException) -> None:
    """Write down the run's true end, as far as a full disk allows."""
    record.make_room()
    run, ending = record.run, ending_of(error)
    tags = {names.ERROR_TAG: ending.error}
    if ending.is_final:
        run.is_resumable = False
    elif ending.state == "FAILED":
        # A trial of a sweep that failed is tried again from its beginning.
        run.is_resumable = run.parent is None and (ending.spares_training or record.has_checkpoint)
    if isinstance(error, Pruned):
        run.name = f"pruned: {run.name}"  # MLflow shows the cross of any run cut short
        tags[names.NAME_TAG] = run.name
        tags[names.NOTE_TAG] = f"Pruned: {error}\n\n{run.tags[names.NOTE_TAG]}"
        tags[names.PRUNED_TAG] = str(error.epoch)
    if isinstance(error, Diverged):
        tags[names.DIVERGED_EPOCH_TAG] = str(error.epoch)
        tags[names.DIVERGED_STEP_TAG] = str(error.step)
    if ending.traceback:
        with contextlib.suppress(OSError):  # the disk may be full: the status matters more
            (record.artifacts / names.TRACEBACK_FILE).write_text(ending.traceback)
            error.add_note("its record holds the traceback (artifact traceback.txt)")
    with contextlib.suppress(OSError):  # the next command finds its process dead: KILLED
        record.finish(ending.status, tags)
