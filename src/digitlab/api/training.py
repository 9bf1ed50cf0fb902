"""One configuration trained and recorded: what `digitlab train` and `digitlab.train` do."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from digitlab.config.schema import Config
from digitlab.errors import DigitlabError, machine_refusal
from digitlab.text.terminal import say

if TYPE_CHECKING:
    from digitlab.runs.experiment import Outcome
    from digitlab.runs.interrupts import Interrupts


def train_config(config: Config, interrupts: "Interrupts", *, command: str | None = None) -> "Outcome":
    """Train, test and record one configuration in this process.

    command: recorded as the one that asked for it; by default that of this process.

    Raises:
        DigitlabError: with one message, where the run's record or the machine says enough.
        Interrupted: `interrupts` was asked to stop; the run is recorded as KILLED.
    """
    from digitlab.tracking.connection.location import resolve_uri
    from digitlab.tracking.delivery import import_early

    import_early(resolve_uri(config.tracking.uri))  # beside the import of torch
    from digitlab.runs.describe import request_run
    from digitlab.runs.experiment import Session, run_experiment
    from digitlab.runs.progress import TrainingProgress

    with failures_as_messages():
        session = Session(interrupts, say, TrainingProgress())
        return run_experiment(request_run(config, say=say, command=command), session)


@contextlib.contextmanager
def failures_as_messages() -> Iterator[None]:
    """Raise what a run fails with as one message, if its record or the machine says enough."""
    try:
        yield
    except DigitlabError:
        raise
    except Exception as error:
        refusal, kept = machine_refusal(error), getattr(error, "__notes__", [])
        if refusal is None and not kept:  # nothing holds its traceback
            raise
        cause = refusal or f"{type(error).__name__}: {error}"
        raise DigitlabError("; ".join([f"the run failed: {cause}", *kept])) from error
