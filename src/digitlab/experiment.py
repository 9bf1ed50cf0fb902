"""One run from a checked configuration to its record: the one place where the parts meet.

Writes a record on this disk and lets a Delivery bring it to the tracking store.
"""

import dataclasses
import itertools
import json
import os
import time
import traceback
from collections.abc import Callable
from typing import Protocol

import torch
import yaml
from torch import nn

from digitlab import project, provenance
from digitlab.artifacts import draw_artifacts, epoch_metrics, save_artifacts
from digitlab.checking import as_param, flatten
from digitlab.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from digitlab.config import Config
from digitlab.data import Dataset, load
from digitlab.errors import ConfigError, Diverged, Interrupted, Pruned
from digitlab.evaluation import Evaluation, evaluate
from digitlab.fingerprint import fingerprint, source_digest, source_files
from digitlab.interrupts import Interrupts
from digitlab.models import build_model
from digitlab.optimizers import build_optimizer
from digitlab.record import Membership, Record
from digitlab.schedules import build_schedule
from digitlab.selection import best_report, until_stale
from digitlab.serving import CONFIG_FILE, weights_digest
from digitlab.tracking.delivery import Delivery
from digitlab.tracking.location import recorded_values, resolve_uri, unreachable
from digitlab.tracking.model_format import save_mlflow_model
from digitlab.training import EpochReport, fit, num_steps

DIGEST_LENGTH = 36  # MLflow's limit for a data set's digest


class Watch(Protocol):
    """Somebody who looks on while a run trains. What a method raises ends the training there."""

    def begin(self, *, epochs: int, steps_per_epoch: int) -> None: ...
    def before_step(self) -> None: ...
    def after_epoch(self, report: EpochReport) -> None: ...
    def end(self) -> None: ...
    def recorded(self, status: str, run_id: str | None) -> None: ...


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


@dataclasses.dataclass(frozen=True, slots=True)
class _Trained:
    history: list[EpochReport]
    epoch: int  # whose weights the model now has
    model: nn.Module


def run_experiment(
    config: Config,
    *,
    interrupts: Interrupts,
    say: Callable[[str], None],
    watch: Watch,
    member: Membership | None = None,
    dataset: Dataset | None = None,
) -> Outcome:
    """Train, test and record one configuration; its record says truly how it ended.

    Args:
        member: the place in a sweep; a run of that record which was cut short is continued.
        dataset: what `config.data` names, if somebody has loaded it already.

    Raises:
        ConfigError: the device is not there. DataError: the data are not. Neither leaves a run.
        Diverged, Interrupted, Pruned, or whatever went wrong: the run is recorded as FAILED or KILLED.
    """
    device = choose_device(config.device)
    torch.set_num_threads(config.threads)
    dataset = dataset or load(config.data, project.data_root(config.data.root))
    uri = member.tracking_uri if member else resolve_uri(config.tracking.uri)
    if reason := unreachable(uri):
        say(f"{reason}; the run goes on and its record stays on this disk for `digitlab sync`")
    record = (member and Record.reopen(project.records() / member.record_id)) or _open_record(
        config, dataset, uri, device, member
    )
    delivery = Delivery(record, say)
    try:
        interrupts.check()
        trained = _train(config, dataset, device, record, delivery, interrupts, watch, member)
        evaluation = evaluate(trained.model, dataset.test.to(device))
        _log_test(record, trained, evaluation)
        history, folder = trained.history, record.artifacts
        save_artifacts(folder, trained.model, dataset, history, evaluation)
        if config.record.plots == "always" or (config.record.plots == "auto" and member is None):
            draw_artifacts(folder, dataset, history, evaluation)
        if config.record.mlflow_model:
            save_mlflow_model(record.artifacts, provenance.versions())
        record.finish("FINISHED", {"digitlab.weights": weights_digest(trained.model.state_dict())})
    except Interrupted as error:
        record.finish("KILLED", {"digitlab.error": str(error)})
        raise
    except Pruned as error:
        record.run.is_resumable = False
        record.finish(
            "KILLED", {"digitlab.error": str(error), "digitlab.pruned.epoch": str(error.epoch)}
        )
        raise
    except Diverged as error:
        where = {"digitlab.diverged.epoch": str(error.epoch), "digitlab.diverged.step": str(error.step)}
        record.finish("FAILED", {"digitlab.error": str(error), **where})
        raise
    except BaseException as error:
        (record.artifacts / "traceback.txt").write_text(traceback.format_exc())
        record.finish("FAILED", {"digitlab.error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        delivery.finish()
        record.release()
        watch.recorded(record.run.status, record.delivered.run_id)
    return Outcome(
        record_id=record.run.record_id,
        run_id=record.delivered.run_id,
        name=record.run.name,
        seconds=((record.run.end_time or 0) - record.run.start_time) / 1000,
        history=trained.history,
        chosen_epoch=trained.epoch,
        evaluation=evaluation,
    )


def choose_device(wanted: str) -> torch.device:
    """The device for the knob `device`, set up to give the same bits every time.

    Raises:
        ConfigError: a GPU is wanted, and none is usable.
    """
    device = torch.device(resolved_device(wanted))
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
        torch.backends.cudnn.benchmark = False
        # Not torch.use_deterministic_algorithms, which imports torch._inductor: 1.5 s and more.
        torch.set_deterministic_debug_mode("warn")
        # Nobody reads what torch.empty leaves: a kernel less for each.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def resolved_device(wanted: str) -> str:
    """`cpu` or `cuda` for the knob `device`, without setting anything up.

    Raises:
        ConfigError: a GPU is wanted, and none is usable.
    """
    available = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError(["device must be auto or cpu on this machine (no GPU is usable), got cuda"])
    return "cuda" if available else "cpu"


def run_name(config: Config) -> str:
    """What tells runs apart at a glance: `cnn adam lr=0.001 seed=0`."""
    optimizer = config.optimizer
    made = f"{config.model.name} {optimizer.name} lr={optimizer.learning_rate:g} seed={config.seed}"
    return config.run_name or made


def _open_record(
    config: Config, dataset: Dataset, uri: str, device: torch.device, member: Membership | None
) -> Record:
    """A record with everything known before training, so that a killed run is described too."""
    versions, code, machine = provenance.versions(), provenance.code(), provenance.machine()
    command = member.command if member else provenance.command_line()
    digests = {f"digitlab.data.{name}": value for name, value in dataset.digests.items()}
    tags = {
        "digitlab.version": versions["digitlab"],
        "digitlab.commit": code["commit"],
        "digitlab.dirty": code["dirty"],
        "digitlab.command": command,
        "digitlab.host": machine["host"],
        "digitlab.device": str(device),
        "mlflow.source.name": "digitlab",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": code["commit"],
        "mlflow.note.content": f"    {command}\n",
        "digitlab.fingerprint": fingerprint(config, device=device.type, data=dataset.digests),
        "digitlab.source": source_digest(),
        **digests,
        **(member.tags if member else {}),
    }
    values = recorded_values(config)
    record = Record.create(
        project.records(),
        study=config.study,
        record_id=member.record_id if member else None,
        parent=member.sweep if member else None,
        is_resumable=member is not None,
        name=member.name if member else run_name(config),
        tracking_uri=uri,
        params={path: as_param(value) for path, value in flatten(values).items()},
        tags=tags,
        dataset=_describe_data(dataset),
        process=provenance.this_process(),
    )
    (record.artifacts / CONFIG_FILE).write_text(yaml.safe_dump(values, sort_keys=False))
    origin = {
        "command": command,
        "code": code,
        "source": source_files(),
        "versions": versions,
        "machine": machine,
        "device": str(device),
        "gpu": _describe_gpu(device),
        "threads": config.threads,
        "data": dataset.digests,
    }
    (record.artifacts / "provenance.json").write_text(json.dumps(origin, indent=1))
    return record


def _train(
    config: Config,
    dataset: Dataset,
    device: torch.device,
    record: Record,
    delivery: Delivery,
    interrupts: Interrupts,
    watch: Watch,
    member: Membership | None,
) -> _Trained:
    """Fit, report every epoch, stop early if asked to, and give the model the chosen weights."""
    model = build_model(config.model, config.seed).to(device)
    optimizer = build_optimizer(config.optimizer, list(model.parameters()))
    state = (member and load_checkpoint(record.folder)) or TrainingState([], {}, {}, {}, 0)
    if state.history:
        model.load_state_dict(state.model)
        optimizer.restore(state.optimizer)
    steps_per_epoch = num_steps(len(dataset.train), config.batch_size)

    def before_step() -> None:
        interrupts.check()
        watch.before_step()

    reports = fit(
        model,
        dataset.train.to(device),
        dataset.validation.to(device) if dataset.validation else None,
        optimizer=optimizer,
        schedule=build_schedule(
            config.scheduler,
            config.optimizer.learning_rate,
            steps_per_epoch=steps_per_epoch,
            epochs=config.epochs,
        ),
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        first_epoch=len(state.history) + 1,
        before_step=before_step,
    )
    history: list[EpochReport] = []
    next_checkpoint = time.monotonic() + config.checkpoint.every_seconds
    watch.begin(epochs=config.epochs, steps_per_epoch=steps_per_epoch)
    try:
        with interrupts.deferred():
            for report in until_stale(itertools.chain(state.history, reports), config.early_stopping):
                history.append(report)
                record.log_metrics(epoch_metrics(report), step=report.epoch)
                keep_best, metric = config.checkpoint.weights == "best", config.checkpoint.metric
                is_new = report.epoch > len(state.history)
                if is_new and keep_best and best_report(history, metric) is report:
                    state.best = {k: v.clone() for k, v in model.state_dict().items()}
                    state.best_epoch = report.epoch
                if member and is_new and time.monotonic() >= next_checkpoint:
                    state.history, state.model = list(history), model.state_dict()
                    state.optimizer = optimizer.state()
                    save_checkpoint(record.folder, state)
                    next_checkpoint = time.monotonic() + config.checkpoint.every_seconds
                watch.after_epoch(report)
                delivery.push()
    finally:
        watch.end()
    interrupts.check()
    if state.best:
        model.load_state_dict(state.best)
    return _Trained(history, state.best_epoch if state.best else history[-1].epoch, model)


def _log_test(record: Record, trained: _Trained, evaluation: Evaluation) -> None:
    f1 = [scores.f1 for scores in evaluation.per_class]
    metrics = {
        "test/loss": evaluation.scores.loss,
        "test/accuracy": evaluation.scores.accuracy,
        "test/macro_f1": sum(f1) / len(f1),
        "test/calibration_error": evaluation.calibration_error,
        "chosen/epoch": trained.epoch,
    }
    # validation/... is of the last epoch; these are of the weights that were tested.
    if validation := trained.history[trained.epoch - 1].validation:
        metrics["chosen/validation_loss"] = validation.loss
        metrics["chosen/validation_accuracy"] = validation.accuracy
    record.log_metrics(metrics, step=trained.epoch)


def _describe_gpu(device: torch.device) -> dict[str, str]:
    """What a GPU's rounding depends on; empty for the CPU."""
    if device.type == "cpu":
        return {}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    name = torch.cuda.get_device_name(device)
    return {"name": name, "cuda": str(torch.version.cuda), "cudnn": str(cudnn)}


def _describe_data(dataset: Dataset) -> dict[str, str]:
    """The data set as an MLflow input; its digest covers every byte, unlike MLflow's own."""
    sizes = {"train": len(dataset.train), "test": len(dataset.test)}
    sizes["validation"] = len(dataset.validation) if dataset.validation else 0
    return {
        "name": dataset.name,
        "digest": dataset.digests["train_images"][:DIGEST_LENGTH],
        "source_type": "code",
        "source": json.dumps({"name": dataset.name, "sha256": dataset.digests}),
        "profile": json.dumps({"num_images": sizes}),
    }
