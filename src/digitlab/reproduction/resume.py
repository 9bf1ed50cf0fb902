"""A run that was cut short, resumed from its record: it ends with the bits it would have had."""

import dataclasses

from digitlab.config.checking import recorded_config
from digitlab.config.schema import Config
from digitlab.errors import DigitlabError, UsageError
from digitlab.reproduction.changes import input_changes
from digitlab.results.compare.differences import arithmetic_differences
from digitlab.runs import document as documents
from digitlab.runs.checkpoints import check_version
from digitlab.runs.describe import has_code_of_today, request_run
from digitlab.runs.document import Document, RefusedDocument
from digitlab.runs.experiment import Outcome, Session, open_run
from digitlab.tracking.names import COMMAND_TAG, RECORD_FILE, SWEEP_TAG
from digitlab.tracking.run_folder import RunFolder
from digitlab.training.arithmetic import PRODUCT, PRODUCT_BEFORE, VARIABLES
from digitlab.training.products import asking_for
from digitlab.training.resumable import Resumable


def resume_run(folder: RunFolder, session: Session, *, force: bool) -> tuple[Config, Outcome]:
    """Train it to its end.

    force: though code, data or arithmetic have changed; the record says so from then on.

    Raises:
        UsageError: it has ended, another process works on it, or something has changed.
        LaterFormat: a later digitlab left its checkpoint. The run stays as it is.
    """
    _check_can_go_on(folder)
    check_version(folder.folder)
    before = _document(folder)
    config = recorded_config(before.config)
    with asking_for(before.arithmetic.get(PRODUCT, PRODUCT_BEFORE)):
        request = request_run(config, say=session.say, command=before.command, continued=folder)
    today = request.document
    if has_code_of_today(before, folder.run.tags):
        before = dataclasses.replace(before, code=today.code, components=today.components)
    changed = _changes(before, today)
    if changed and not force:
        reasons = "\n".join(f"  {reason}" for reason in changed)
        raise UsageError(
            f"{folder.run.name!r} would not end with the bits it would have had:\n{reasons}\n"
            "go on all the same with --force: its record then says that it is not reproducible"
        )
    document = dataclasses.replace(today, reproducible=before.reproducible and not changed)
    with open_run(dataclasses.replace(request, document=document), session) as run:
        run.begin()
        session.say(_place(run.training))
        run.train()
        run.conclude()
    return config, run.outcome()


def _place(training: Resumable) -> str:
    """Where a training goes on, both counted from 1."""
    epochs, steps = divmod(training.steps_done, training.steps_per_epoch)
    if epochs == training.config.epochs:
        return "all epochs are trained: what is left is to test and to record it"
    return f"goes on at epoch {epochs + 1}, step {steps + 1} of {training.steps_per_epoch}"


def _check_can_go_on(record: RunFolder) -> None:
    run = record.run
    if run.parent is not None:
        raise UsageError(f"{run.name!r} is a trial of sweep {run.tags.get(SWEEP_TAG)}: resume that one")
    if run.status == "FINISHED" or not run.is_resumable:
        raise UsageError(f"{run.name!r} has ended as {run.status}: there is nothing to go on with")
    if run.status == "RUNNING" and not record.try_to_own():
        raise UsageError(
            f"{run.name!r} is being worked on by process {run.process.pid} of {run.process.host}"
        )
    record.release()


def _document(record: RunFolder) -> Document:
    file = record.artifacts / RECORD_FILE
    try:
        return documents.parse(file.read_bytes())
    except FileNotFoundError:
        again = record.run.tags.get(COMMAND_TAG)
        raise UsageError(f"{record.run.name!r} had not begun: start it anew with: {again}") from None
    except RefusedDocument as error:
        raise DigitlabError(f"{file} is of no use:\n{error}") from None


def _changes(before: Document, today: Document) -> list[str]:
    """Everything that may change the bits of the rest of the training."""
    changed = [str(change) for change in input_changes(before, today)]
    if before.canary != today.canary or before.threads != today.threads:
        changed += arithmetic_differences(before, today)
    else:  # the canary is too small a computation to show every variable
        variables = [v for v in VARIABLES if before.arithmetic.get(v) != today.arithmetic.get(v)]
        changed += [f"{variable} differs" for variable in variables]
    if before.device != today.device:
        changed.append(f"device is {today.device}, was {before.device}")
    return changed
