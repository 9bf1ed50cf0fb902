"""One run from a checked configuration to its record: the one place where the parts meet.

Writes a record on this disk and lets a Delivery bring it to the tracking store.
"""

import contextlib
import dataclasses
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from digitlab import arithmetic, project, provenance
from digitlab import document as documents
from digitlab.artifacts import draw_artifacts, epoch_metrics, save_artifacts
from digitlab.checkpoint import NotSaved
from digitlab.config import Config
from digitlab.data import Dataset, load
from digitlab.document import Document
from digitlab.errors import ConfigError, DigitlabError, Diverged, Interrupted, Pruned
from digitlab.evaluation import Evaluation, evaluate
from digitlab.interrupts import Interrupts
from digitlab.opening import describe_run, identity, open_record
from digitlab.record import Membership, Record, Status, write_atomically
from digitlab.resumable import Checkpoints, Resumable
from digitlab.serving import weights_digest
from digitlab.trace import trace_of
from digitlab.tracking.delivery import Delivery
from digitlab.tracking.location import resolve_uri, unreachable
from digitlab.tracking.model_format import save_mlflow_model
from digitlab.training import EpochReport, Position


class Watch(Protocol):
    """Somebody who looks on while a run trains. What a method raises ends the training there."""

    def begin(self, *, epochs: int, steps_per_epoch: int, steps_done: int) -> None: ...
    def before_step(self) -> None: ...
    def after_epoch(self, report: EpochReport) -> None: ...
    def end(self) -> None: ...
    def recorded(self, record: Record) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Continued:
    """A run that was cut short, owned by this process.

    is_reproducible: False if it goes on, or has gone on, over a change that moves its bits.
    """

    record: Record
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
    device = prepare_process(config)
    dataset = dataset or load(config.data, project.data_root(config.data.root))
    uri = member.tracking_uri if member else resolve_uri(config.tracking.uri)
    if reason := unreachable(uri):
        say(f"{reason}; the run goes on and its record stays on this disk for `digitlab sync`")
    command = member.command if member else command or provenance.command_line()
    document = describe_run(config, dataset, device, command=command)
    if continued and not continued.is_reproducible:
        document = dataclasses.replace(document, reproducible=False)
    record = _record(document, config, dataset, uri, member, continued, tags or {})
    _save_document(record, document)
    delivery = Delivery(record, say)
    training = Resumable(config, dataset, device)
    try:
        interrupts.check()
        checkpoints = Checkpoints(
            record.folder, training, identity=identity(document), interrupts=interrupts
        )
        checkpoints.restore(say, force=continued is not None and not continued.is_reproducible)
        _train(training, checkpoints, record, delivery, interrupts, watch)
        evaluation = evaluate(training.model, dataset.test.to(device))
        _log_test(record, training, evaluation)
        save_artifacts(record.artifacts, training.model, dataset, training.history, evaluation)
        if config.record.plots == "always" or (config.record.plots == "auto" and member is None):
            draw_artifacts(record.artifacts, dataset, training.history, evaluation)
        if config.record.mlflow_model:
            save_mlflow_model(record.artifacts, provenance.versions())
        weights = weights_digest(training.model.state_dict())
        document = _save_trace(record, document, training, weights=weights, evaluation=evaluation)
        record.finish("FINISHED", {"digitlab.weights": weights})
    except BaseException as error:
        _end_badly(record, error)
        with contextlib.suppress(OSError):
            _save_trace(record, document, training)
        raise
    finally:
        try:
            delivery.finish()
        except OSError as full:  # the disk; what ended the run is the news, not this
            say(f"not delivered completely: {full}; `digitlab sync` tries again")
        record.release()
        watch.recorded(record)
    return Outcome(
        record_id=record.run.record_id,
        run_id=record.delivered.run_id,
        name=record.run.name,
        seconds=((record.run.end_time or 0) - record.run.start_time) / 1000,
        history=training.history,
        chosen_epoch=training.chosen_epoch,
        evaluation=evaluation,
        document=document,
    )


def _record(
    document: Document,
    config: Config,
    dataset: Dataset,
    uri: str,
    member: Membership | None,
    continued: Continued | None,
    tags: Mapping[str, str],
) -> Record:
    """The record of a run that goes on, or of a new one."""
    if continued:
        if not continued.is_reproducible:
            # No sweep must take its result for that of the same knobs.
            continued.record.run.tags |= {"digitlab.reproducible": "false", "digitlab.fingerprint": ""}
        return continued.record
    if member and (record := Record.reopen(project.records() / member.record_id)):
        return record
    return open_record(document, config, dataset, uri, name=run_name(config), member=member, tags=tags)


def _end_badly(record: Record, error: BaseException) -> None:
    """The record's true end. It can be continued unless it would end in the same way again."""
    record.make_room()
    run = record.run
    status: Status = "FAILED"
    tags = {"digitlab.error": str(error)}
    match error:
        case Interrupted():
            status = "KILLED"
        case Pruned():
            status, run.is_resumable = "KILLED", False
            tags["digitlab.pruned.epoch"] = str(error.epoch)
        case Diverged():
            run.is_resumable = False
            tags["digitlab.diverged.epoch"] = str(error.epoch)
            tags["digitlab.diverged.step"] = str(error.step)
        case _:
            if not isinstance(error, DigitlabError):
                tags["digitlab.error"] = f"{type(error).__name__}: {error}"
            # A trial of a sweep that failed is tried again from its beginning.
            was_the_disk = isinstance(error, OSError | NotSaved)
            run.is_resumable = run.parent is None and (was_the_disk or record.has_checkpoint)
            with contextlib.suppress(OSError):  # the disk may be full: the status matters more
                (record.artifacts / "traceback.txt").write_text(traceback.format_exc())
    with contextlib.suppress(OSError):  # then the next command finds its process dead: KILLED
        record.finish(status, tags)


def _save_trace(record: Record, document: Document, training: Resumable, **ended: Any) -> Document:
    trace = trace_of(training.initial_weights, training.history, **ended)
    document = dataclasses.replace(document, trace=trace)
    _save_document(record, document)
    return document


def _save_document(record: Record, document: Document) -> None:
    """Half of one, after a kill or on a full disk, could not be gone on with."""
    write_atomically(record.artifacts / documents.FILE, documents.dump(document))


def prepare_process(config: Config) -> torch.device:
    """Let this process compute as the configuration says: arithmetic, threads, device.

    Raises:
        ConfigError: it cannot.
    """
    arithmetic.prepare(config.arithmetic)
    torch.set_num_threads(config.threads)
    return choose_device(config.device, config.arithmetic)


def choose_device(wanted: str, arithmetic: str) -> torch.device:
    """The device for these knobs, set up to give the same bits every time, in full float32.

    Raises:
        ConfigError: a GPU is wanted, and none is usable.
    """
    device = torch.device(resolved_device(wanted, arithmetic))
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
        torch.backends.cudnn.benchmark = False
        # TF32 would round convolutions a thousand times more coarsely than a CPU does, for nothing: the
        # CNN takes 3.0 ms a step on an H100 either way.
        torch.backends.cudnn.allow_tf32 = False
        # Not torch.use_deterministic_algorithms, which imports torch._inductor: 1.5 s and more.
        torch.set_deterministic_debug_mode("warn")
        # Nobody reads what torch.empty leaves: a kernel less for each.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def resolved_device(wanted: str, arithmetic: str) -> str:
    """`cpu` or `cuda` for the knobs `device` and `arithmetic`, without setting anything up.

    Raises:
        ConfigError: a GPU is wanted, and none is usable.
    """
    available = wanted != "cpu" and arithmetic == "native" and torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError(["device must be auto or cpu on this machine (no GPU is usable), got cuda"])
    return "cuda" if available else "cpu"


def run_name(config: Config) -> str:
    """What tells runs apart at a glance: `cnn adam lr=0.001 seed=0`."""
    optimizer = config.optimizer
    made = f"{config.model.name} {optimizer.name} lr={optimizer.learning_rate:g} seed={config.seed}"
    return config.run_name or made


def _train(
    training: Resumable,
    checkpoints: Checkpoints,
    record: Record,
    delivery: Delivery,
    interrupts: Interrupts,
    watch: Watch,
) -> None:
    """Train to the end, reporting every epoch."""

    def before_step(position: Position) -> None:
        checkpoints.before_step(position)
        watch.before_step()

    watch.begin(
        epochs=training.config.epochs,
        steps_per_epoch=training.steps_per_epoch,
        steps_done=training.steps_done,
    )
    try:
        with interrupts.deferred():
            for report in training.reports(before_step):
                record.log_metrics(epoch_metrics(report), step=report.epoch)
                checkpoints.after_epoch(report)
                watch.after_epoch(report)
                delivery.push()
    finally:
        watch.end()
    interrupts.check()


def _log_test(record: Record, training: Resumable, evaluation: Evaluation) -> None:
    f1 = [scores.f1 for scores in evaluation.per_class]
    metrics = {
        "test/loss": evaluation.scores.loss,
        "test/accuracy": evaluation.scores.accuracy,
        "test/macro_f1": sum(f1) / len(f1),
        "test/calibration_error": evaluation.calibration_error,
        "chosen/epoch": training.chosen_epoch,
    }
    # validation/... is of the last epoch; these are of the weights that were tested.
    if validation := training.history[training.chosen_epoch - 1].validation:
        metrics["chosen/validation_loss"] = validation.loss
        metrics["chosen/validation_accuracy"] = validation.accuracy
    record.log_metrics(metrics, step=training.chosen_epoch)
