"""One run from a checked configuration to its record: the one place where the parts meet.

Writes a record on this disk and lets a Delivery bring it to the tracking store.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from digitlab.models.predict import predict
from digitlab.models.saved import CONFIG_FILE, WEIGHTS_FILE, save_weights, weights_digest
from digitlab.models.signature import MODEL_FILE, Signature
from digitlab.models.signature import dump as dump_signature
from digitlab.runs import document as documents
from digitlab.runs import provenance
from digitlab.runs.artifacts import epoch_metrics, save_tables
from digitlab.runs.checkpoints import Checkpoints
from digitlab.runs.describe import Request, identity, open_folder
from digitlab.runs.document import Document
from digitlab.runs.ending import record_ending
from digitlab.runs.interrupts import Interrupts
from digitlab.runs.pictures import draw_at_end
from digitlab.runs.trace import trace_of
from digitlab.text import yaml_text
from digitlab.text.files import write_atomically
from digitlab.tracking import names
from digitlab.tracking.delivery import Delivery, LeftToController
from digitlab.tracking.model_format import save_mlflow_model
from digitlab.tracking.run_folder import RunFolder
from digitlab.training.evaluation import Evaluation, evaluate
from digitlab.training.loop import EpochReport, Position
from digitlab.training.resumable import Resumable


class Watch(Protocol):
    """Observer of one training. An exception raised by a method ends the training."""

    def begin(self, *, epochs: int, steps_per_epoch: int, steps_done: int) -> None: ...
    def before_step(self) -> None: ...
    def after_epoch(self, report: EpochReport) -> None: ...
    def end(self) -> None: ...
    def recorded(self, record: RunFolder) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """The surroundings of a run in its process: what may stop it, and what reports on it."""

    interrupts: Interrupts
    say: Callable[[str], None]
    watch: Watch


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


def run_experiment(request: Request, session: Session) -> Outcome:
    """Train, test and record one configuration; its record says truly how it ended.

    Raises:
        Diverged, Interrupted, Pruned, or whatever went wrong: the run is recorded as FAILED or KILLED.
    """
    with open_run(request, session) as run:
        run.begin()
        run.train()
        run.conclude()
    return run.outcome()


def open_run(request: Request, session: Session) -> "OpenRun":
    training = Resumable(request.config, request.dataset, torch.device(request.document.device))
    return OpenRun(request, session, training, open_folder(request))


class OpenRun:
    """A run from the making of its folder to its end: `begin`, `train` and `conclude`, in this order.

    As a context it records an exception as the run's end, and delivers the end to the store.
    """

    def __init__(
        self, request: Request, session: Session, training: Resumable, record: RunFolder
    ) -> None:
        self.record, self.training, self.watch = record, training, session.watch
        is_ours = request.member is None or request.member.is_delivered
        self.delivery = Delivery(record, session.say) if is_ours else LeftToController()
        self.checkpoints = Checkpoints(
            record.folder,
            training,
            identity=identity(request.document),
            interrupts=session.interrupts,
        )
        self._document, self._dataset, self._session = request.document, request.dataset, session
        self._evaluation: Evaluation | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            self.fail(error)
        self.close()

    def begin(self) -> None:
        """Write down what the run is, and continue from its checkpoint if one fits."""
        _write_first_artifacts(self.record, self._document)
        _save_document(self.record, self._document)
        self._session.interrupts.check()
        # A run that is marked as not reproducible continues though code, data or arithmetic changed.
        self.checkpoints.restore(self._session.say, force=not self._document.reproducible)
        self.watch.begin(
            epochs=self.training.config.epochs,
            steps_per_epoch=self.training.steps_per_epoch,
            steps_done=self.training.steps_done,
        )

    def train(self) -> None:
        """All epochs, alone."""

        def before_step(position: Position) -> None:
            self.checkpoints.before_step(position)
            self.watch.before_step()

        try:
            with self._session.interrupts.deferred():
                for report in self.training.reports(before_step):
                    self.after_epoch(report)
                    self.delivery.push()
        finally:
            self.watch.end()
        self._session.interrupts.check()

    def after_epoch(self, report: EpochReport) -> None:
        """Record an epoch. An epoch recorded before an interruption only reaches the watch again."""
        self.record.log_metrics(epoch_metrics(report), step=report.epoch)
        self.checkpoints.after_epoch(report)
        self.watch.after_epoch(report)

    def conclude(self, logits: Tensor | None = None) -> None:
        """Test the trained model and write everything that a finished run leaves.

        logits: (N, C) of the test images, on the CPU, if they are known.
        """
        training, record, dataset = self.training, self.record, self._dataset
        config = training.config
        if logits is None:
            logits = predict(training.model, dataset.test.to(training.device))
        evaluation = evaluate(logits, dataset.test.labels.cpu())
        _log_test(record, training, evaluation)
        save_weights(training.model.state_dict(), record.artifacts / WEIGHTS_FILE)
        signature = Signature(image_shape=dataset.image_shape, class_names=dataset.class_names)
        write_atomically(record.artifacts / MODEL_FILE, dump_signature(signature))
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
        """Record the error as the run's end, unless it has ended."""
        if self.record.run.status != "RUNNING":
            return
        record_ending(self.record, error)
        with contextlib.suppress(OSError):
            self._save_trace()

    def close(self) -> None:
        """Deliver the end, within 10 s, and release the folder. Further calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self.delivery.finish()
        self.record.release()
        self.watch.recorded(self.record)

    def outcome(self) -> Outcome:
        """For a run that was concluded."""
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


def _write_first_artifacts(record: RunFolder, document: Document) -> None:
    """Configuration and uncommitted changes; again when continued: a kill may have come before."""
    write_atomically(record.artifacts / CONFIG_FILE, yaml_text.dump(document.config))
    if patch := provenance.patch():
        write_atomically(record.artifacts / names.PATCH_FILE, patch)


def _save_document(record: RunFolder, document: Document) -> None:
    """Atomically: a run with half a document, after a kill or on a full disk, could not be resumed."""
    write_atomically(record.artifacts / names.RECORD_FILE, documents.dump(document))


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
