"""One configuration trained and recorded: what `digitlab train` and `digitlab.train` do."""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from digitlab.api.composing import compose, listed
from digitlab.api.foreground import in_foreground, torch_as_it_was
from digitlab.api.recorded import Run
from digitlab.api.settling import deliver_records, mark_dead_runs, say_unheeded
from digitlab.config.components import lookup
from digitlab.config.schema import Config
from digitlab.errors import DigitlabError, TrackingError, machine_refusal
from digitlab.text.addresses import redacted
from digitlab.text.terminal import say
from digitlab.tracking.stored_run import undelivered

if TYPE_CHECKING:
    from digitlab.runs.experiment import Outcome
    from digitlab.runs.interrupts import Interrupts


def train(overrides: Sequence[str] | Config = ()) -> Run:
    """Train, test and record one configuration in this process: what `digitlab train` does.

    Ctrl-C ends the run between two steps, as KILLED; `digitlab resume` goes on with it. The process is
    left as it was: its signal handlers, torch's number of threads, random numbers and settings. Several
    threads may call it, and take turns.

    Args:
        overrides: as on the command line, `["model=cnn", "epochs=3"]`, or a whole configuration, of
            `compose` or of a recorded run.

    Raises:
        ConfigError: every mistake in it at once; or what this process cannot do any more:
            arithmetic=portable has to be the first that torch computes in a process.
        DataError: a data set is missing or damaged.
        TrackingError: the store can never take the run. One that is away is no error: the run waits on
            this disk for `digitlab sync`.
        Diverged: the loss is no longer finite. DigitlabError: whatever else went wrong with the run.
        KeyboardInterrupt: Ctrl-C.
    """
    if isinstance(overrides, Config):
        config, command = overrides, "digitlab.train(config)"
    else:
        config = compose(overrides)
        command = command_of("train", overrides)

    def work(interrupts: "Interrupts") -> Run:
        say_unheeded()
        dead = mark_dead_runs()
        with torch_as_it_was():
            outcome = train_config(config, interrupts, command=command)
        deliver_records(dead)  # after the run: its first step waits for no store
        return run_of(outcome, config)

    return in_foreground(work)


def command_of(name: str, overrides: Sequence[str]) -> str:
    """The command that does the same, without secrets: to be recorded and pasted."""
    return shlex.join(["digitlab", name, *map(redacted, listed(overrides))])


def run_of(outcome: "Outcome", config: Config) -> Run:
    """The finished run as it was recorded. In a user's process: the delivering one asks the store."""
    from digitlab.config import project
    from digitlab.tracking.connection.location import resolve_uri
    from digitlab.tracking.delivery import bounded_store
    from digitlab.tracking.run_folder import RunFolder

    uri = resolve_uri(config.tracking.uri)
    if record := RunFolder.named(project.records(), outcome.record_id):
        return Run(undelivered(record), uri)
    try:
        assert outcome.run_id is not None, "delivered, and so deleted here"
        return Run(bounded_store(uri).find(outcome.run_id), uri)
    except TrackingError as error:
        raise TrackingError(
            f"run {outcome.run_id} has FINISHED and is in the store, which does not answer: {error}"
        ) from None


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
        cause = refusal or lookup.what_failed(error)
        raise DigitlabError("; ".join([f"the run failed: {cause}", *kept])) from error
