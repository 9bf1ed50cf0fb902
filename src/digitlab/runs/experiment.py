"""One run from a checked configuration to its record: the one place where the parts meet.

Writes a record on this disk and lets a Delivery bring it to the tracking store.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from digitlab.config import project
from digitlab.config.schema import Config
from digitlab.data.splits import Dataset, load
from digitlab.errors import Diverged, Pruned
from digitlab.models.saved import WEIGHTS_FILE, save_weights, weights_digest
from digitlab.runs import document as documents
from digitlab.runs import provenance
from digitlab.runs.artifacts import epoch_metrics, save_tables
from digitlab.runs.checkpoints import Checkpoints
from digitlab.runs.describe import describe_run, identity, open_record, write_first_artifacts
from digitlab.runs.document import Document
from digitlab.runs.ending import ending_of
from digitlab.runs.interrupts import Interrupts
from digitlab.runs.pictures import draw_at_end
from digitlab.runs.trace import trace_of
from digitlab.text.files import write_atomically
from digitlab.tracking import names
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.delivery import Delivery, check_before_training
from digitlab.tracking.model_format import save_mlflow_model
from digitlab.tracking.run_folder import Membership, RunFolder
from digitlab.training.devices import prepare_process
from digitlab.training.evaluation import Evaluation, evaluate
from digitlab.training.loop import EpochReport, Position
from digitlab.training.resumable import Resumable


class Watch(Protocol):
    """Somebody who looks on while a run trains. What a method raises ends the training there."""

    def begin(self, *, epochs: int, steps_per_epoch: int, steps_done: int) -> None: ...
    def before_step(self) -> None: ...
    def after_epoch(self, report: EpochReport) -> None: ...
    def end(self) -> None: ...
    def recorded(self, record: RunFolder) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Continued:
    """A run that was cut short, owned by this process.

    is_reproducible: False if it goes on, or has gone on, over a change that moves its bits.
    """

    record: RunFolder
    is_reproducible: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run: ids in the store (None: not delivered yet), and what it reached."""

    record_id: str
    run_id: str | None
    name: str
    seconds: float
    history: list[EpochReport]
    chosen_epoch: int
    evaluation: Evaluation
    document: Document


def run_experiment(
    config: Config,
    *,
    interrupts: Interrupts,
    say: Callable[[str], None],
    watch: Watch,
    member: Membership | None = None,
    dataset: Dataset | None = None,
    continued: Continued | None = None,
    tags: Mapping[str, str] | None = None,
    command: str | None = None,
) -> Outcome:
    """Train, test and record one configuration; its record says truly how it ended.

    Args:
        member: the place in a sweep; a run of that record which was cut short is continued.
        dataset: what `config.data` names, if somebody has loaded it already.
        continued: the run to go on with, instead of a new one.
        tags: further ones for the record.
        command: that asked for the run; None: this process's own.

    Raises:
        ConfigError: the device is not there. DataError: the data are not. Neither leaves a run.
        Diverged, Interrupted, Pruned, or whatever went wrong: the run is recorded as FAILED or KILLED.
    """
    run = open_run(
        config,
        prepare_process(config),
        interrupts=interrupts,
        say=say,
        watch=watch,
        member=member,
        dataset=dataset,
        continued=continued,
        tags=tags,
        command=command,
    )
    try:
        run.restore(force=continued is not None and not continued.is_reproducible)
        run.train()
        run.conclude()
    except BaseException as error:
        run.fail(error)
        raise
    finally:
        run.close()
    return run.outcome()


def open_run(
    config: Config,
    device: torch.device,
    *,
    interrupts: Interrupts,
    say: Callable[[str], None],
    watch: Watch,
    member: Membership | None = None,
    dataset: Dataset | None = None,
    continued: Continued | None = None,
    tags: Mapping[str, str] | None = None,
    command: str | None = None,
) -> "OpenRun":
    """The run with its record, before its first step; the arguments are those of `run_experiment`.

    Whoever opens it calls `close` in the end, and before that `conclude`, or `fail` with the error.
    """
    uri = member.tracking_uri if member else resolve_uri(config.tracking.uri)
    if member is None and continued is None:
        check_before_training(uri, config.study)
    if member is None and (reason := provenance.unreadable_checkout()):
        say(reason)
    dataset = dataset or load(config.data, project.data_root(config.data.root))
    command = member.command if member else command or provenance.command_line()
    document = describe_run(config, dataset, device, command=command)
    is_reproducible = continued is None or continued.is_reproducible
    document = dataclasses.replace(document, reproducible=is_reproducible)
    record = _record(document, config, dataset, uri, member, continued, tags or {})
    _save_document(record, document)
    training = Resumable(config, dataset, device)
    return OpenRun(record, document, training, dataset, interrupts, say, watch)


class OpenRun:
    """A run between its opening and its end.

    delivery: brings its record to the store, when it is told to.
    """

    def __init__(
        self,
        record: RunFolder,
        document: Document,
        training: Resumable,
        dataset: Dataset,
        interrupts: Interrupts,
        say: Callable[[str], None],
        watch: Watch,
    ) -> None:
        self.record, self.training, self.watch = record, training, watch
        self.delivery = Delivery(record, say)
        self.checkpoints = Checkpoints(
            record.folder, training, identity=identity(document), interrupts=interrupts
        )
        self._document, self._dataset, self._interrupts, self._say = document, dataset, interrupts, say
        self._evaluation: Evaluation | None = None

    def restore(self, *, force: bool = False) -> None:
        """Go on at the record's checkpoint, if there is one that fits; with `force` at any."""
        self._interrupts.check()
        self.checkpoints.restore(self._say, force=force)
        self.watch.begin(
            epochs=self.training.config.epochs,
            steps_per_epoch=self.training.steps_per_epoch,
            steps_done=self.training.steps_done,
        )

    def train(self) -> None:
        """To the end, alone, reporting every epoch."""

        def before_step(position: Position) -> None:
            self.checkpoints.before_step(position)
            self.watch.before_step()

        try:
            with self._interrupts.deferred():
                for report in self.training.reports(before_step):
                    self.after_epoch(report)
                    self.delivery.push()
        finally:
            self.watch.end()
        self._interrupts.check()

    def after_epoch(self, report: EpochReport) -> None:
        """Write an epoch down; one that was written down before is only told again."""
        self.record.log_metrics(epoch_metrics(report), step=report.epoch)
        self.checkpoints.after_epoch(report)
        self.watch.after_epoch(report)

    def conclude(self) -> None:
        """Test the trained model and leave all that belongs to a finished run."""
        training, record, dataset = self.training, self.record, self._dataset
        config = training.config
        evaluation = evaluate(training.model, dataset.test.to(training.device))
        _log_test(record, training, evaluation)
        save_weights(training.model.state_dict(), record.artifacts / WEIGHTS_FILE)
        save_tables(record.artifacts, dataset, training.history, evaluation)
        is_alone = record.run.parent is None
        if config.record.plots == "always" or (config.record.plots == "auto" and is_alone):
            draw_at_end(record.artifacts, dataset, training.history, evaluation)
        if config.record.mlflow_model:
            save_mlflow_model(record.artifacts, provenance.versions())
        weights = weights_digest(training.model.state_dict())
        self._save_trace(weights=weights, evaluation=evaluation)
        self._evaluation = evaluation
        record.finish("FINISHED", {names.WEIGHTS_TAG: weights})

    def fail(self, error: BaseException) -> None:
        """Write down what ended it, truly."""
        _end_badly(self.record, error)
        with contextlib.suppress(OSError):
            self._save_trace()

    def close(self) -> None:
        """Deliver its end, which takes 10 s at most, and leave the record."""
        self.delivery.finish()
        self.record.release()
        self.watch.recorded(self.record)

    def outcome(self) -> Outcome:
        """Of a run that was concluded."""
        assert self._evaluation is not None, "it was concluded"
        run = self.record.run
        return Outcome(
            record_id=run.record_id,
            run_id=self.record.delivered.run_id,
            name=run.name,
            seconds=((run.end_time or 0) - run.start_time) / 1000,
            history=self.training.history,
            chosen_epoch=self.training.chosen_epoch,
            evaluation=self._evaluation,
            document=self._document,
        )

    def _save_trace(self, **ended: Any) -> None:
        trace = trace_of(self.training.initial_weights, self.training.history, **ended)
        self._document = dataclasses.replace(self._document, trace=trace)
        _save_document(self.record, self._document)


def _record(
    document: Document,
    config: Config,
    dataset: Dataset,
    uri: str,
    member: Membership | None,
    continued: Continued | None,
    tags: Mapping[str, str],
) -> RunFolder:
    """The record of a run that goes on, or of a new one."""
    if continued:
        if not continued.is_reproducible:
            # No sweep must take its result for that of the same knobs.
            continued.record.run.tags |= {names.REPRODUCIBLE_TAG: "false", names.FINGERPRINT_TAG: ""}
        return continued.record
    if member and (record := RunFolder.reopen(project.records() / member.record_id)):
        before, now = record.run.tags.get(names.ENGINE_TAG, ""), tags.get(names.ENGINE_TAG, "")
        if before != now:
            record.run.tags[names.ENGINE_TAG] = f"{before}; then {now}" if before else now
        write_first_artifacts(record, document)
        return record
    return open_record(document, config, dataset, uri, name=run_name(config), member=member, tags=tags)


def _end_badly(record: RunFolder, error: BaseException) -> None:
    """The record's true end. It can be continued unless it would end in the same way again."""
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
    with contextlib.suppress(OSError):  # then the next command finds its process dead: KILLED
        record.finish(ending.status, tags)


def _save_document(record: RunFolder, document: Document) -> None:
    """Half of one, after a kill or on a full disk, could not be gone on with."""
    write_atomically(record.artifacts / names.RECORD_FILE, documents.dump(document))


def run_name(config: Config) -> str:
    """What tells runs apart at a glance: `cnn adam lr=0.001 seed=0`."""
    optimizer = config.optimizer
    made = f"{config.model.name} {optimizer.name} lr={optimizer.learning_rate:g} seed={config.seed}"
    return config.run_name or made


def _log_test(record: RunFolder, training: Resumable, evaluation: Evaluation) -> None:
    f1 = [scores.f1 for scores in evaluation.per_class]
    metrics = {
        names.TEST_LOSS: evaluation.scores.loss,
        names.TEST_ACCURACY: evaluation.scores.accuracy,
        names.MACRO_F1: sum(f1) / len(f1),
        names.CALIBRATION_ERROR: evaluation.calibration_error,
        names.CHOSEN_EPOCH: training.chosen_epoch,
    }
    # validation/... is of the last epoch; these are of the weights that were tested.
    if validation := training.history[training.chosen_epoch - 1].validation:
        metrics[names.CHOSEN_LOSS] = validation.loss
        metrics[names.CHOSEN_ACCURACY] = validation.accuracy
    record.log_metrics(metrics, step=training.chosen_epoch)
