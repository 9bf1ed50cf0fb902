"""The kinds of errors that a user sees as one message, with the exit code of each.

DigitlabError       1   something went wrong that is not the user's mistake
├── UsageError      2   a wrong command line: an unknown run, an ambiguous id
│   └── ConfigError 2   knobs: unknown, of the wrong type, out of range (all problems at once)
├── DataError       3   a data set is missing, damaged or not what its name says
├── TrackingError   4   the tracking store cannot be reached or refuses
│   └── DeletedError 4  it has deleted what is to be delivered to it
├── Diverged        1   the training loss is no longer finite
├── NotSaved        1   a checkpoint cannot be written
├── Pruned          1   a search gave the trial up
└── CutShort        1   a trial was stopped by what befell those beside it

Interrupted (a BaseException, 128 + signal number): SIGINT, SIGTERM or SIGHUP asked the run to stop
"""

import signal
from collections.abc import Sequence


class DigitlabError(Exception):
    """Whatever digitlab raises by intent; the message says what to do."""

    exit_code = 1


class UsageError(DigitlabError):
    """Something was asked for that is not there, or not allowed."""

    exit_code = 2


class ConfigError(UsageError):
    """Knobs that are refused. `problems` holds one sentence each, with the knob's full path."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(DigitlabError):
    """A data set, or what a run has left, is missing, damaged or not what its name says."""

    exit_code = 3


class TrackingError(DigitlabError):
    """The tracking store cannot be reached, or refuses."""

    exit_code = 4


class DeletedError(TrackingError):
    """A run or a study was deleted in the store; the message says how to have it back."""


class Diverged(DigitlabError):  # noqa: N818  (a state of the training, not a mistake)
    """The training loss became infinite or NaN in `step` (from 1) of `epoch` (from 1)."""

    def __init__(self, *, epoch: int, step: int, loss: float) -> None:
        self.epoch, self.step, self.loss = epoch, step, loss
        super().__init__(
            f"the training loss became {loss} in epoch {epoch}, step {step}: "
            "try a smaller optimizer.learning_rate"
        )


class NotSaved(DigitlabError):  # noqa: N818  (what happened to it)
    """A checkpoint could not be written: nothing is wrong with the training itself."""


class Pruned(DigitlabError):  # noqa: N818  (a decision, not a mistake)
    """A search gave a trial up after `epoch` (from 1)."""

    def __init__(self, *, epoch: int, reason: str) -> None:
        self.epoch = epoch
        super().__init__(f"given up after epoch {epoch}: {reason}")


class CutShort(DigitlabError):  # noqa: N818  (what happened to it)
    """Trials side by side were stopped by what befell all of them; each can go on by itself."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"cut short with those beside it: {type(cause).__name__}: {cause}")


class Interrupted(BaseException):
    """Not an Exception, so that no `except Exception` on the way mistakes it for a failure."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")


# How Python, the loader and torch say that memory, threads or processes have run out.
EXHAUSTED = ("start new thread", "allocate memory", "failed to map segment", "out of memory")


def reason(error: OSError) -> str:
    """Without its number and its file: `Permission denied`."""
    return error.strerror or str(error) or type(error).__name__


def machine_refusal(error: BaseException) -> str | None:
    """What the disk, the memory or the system refused, as one line; None if it is anything else."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, EOFError):
        return "a file or a process that was being read ended too early"
    if isinstance(error, OSError):
        return f"{error.filename}: {reason(error)}" if error.filename else reason(error)
    lines = str(error).splitlines()
    if isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in EXHAUSTED):
        return f"the system gives no more: {lines[0]}"
    return None
