"""`digitlab` that kills itself once, with SIGKILL, at a place that the environment names.

    KILL_PLACE   where: a key of PLACES
    KILL_WHO     controller, worker (or the process that delivers) or both (the controller first);
                 of a single run: controller
    KILL_MARK    a file: made before the kill, so that it happens once

Started as `python -m tests.kills.victim`; the process that workers are forked from imports it, too.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from digitlab import cli


def pid_file() -> Path:
    return Path(os.environ["KILL_MARK"] + ".pid")


def kill() -> None:
    mark = Path(os.environ["KILL_MARK"])
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    controller = int(pid_file().read_text())
    who = os.environ["KILL_WHO"]
    if who in ("controller", "both"):
        os.kill(controller, signal.SIGKILL)
    if who in ("worker", "both"):
        os.kill(os.getpid(), signal.SIGKILL)


def before(
    owner: Any, name: str, skip: int = 0, when: Callable[..., bool] = lambda *_, **__: True
) -> None:
    """Kill before a call of a function, after `skip` of those `when` holds for."""
    real, calls = getattr(owner, name), [0]

    def patched(*arguments: Any, **named: Any) -> Any:
        calls[0] += when(*arguments, **named)
        if calls[0] > skip:
            kill()
        return real(*arguments, **named)

    setattr(owner, name, patched)


def composing() -> None:
    from digitlab.sweep.planning import plan

    before(plan, "_trial", skip=1)


def freezing() -> None:
    half_written("manifest.json")


def half_written(name: str, skip: int = 0) -> None:
    """Kill while a file is written: half of it is there, under its temporary name."""
    from digitlab.runs import checkpoints as checkpoint
    from digitlab.sweep import sweep_folder
    from digitlab.text import files
    from digitlab.tracking import run_folder

    real, calls = files.write_atomically, [0]

    def patched(file: Path, content: str | bytes) -> None:
        calls[0] += file.name == name
        if file.name == name and calls[0] > skip:
            data = content.encode() if isinstance(content, str) else content
            file.with_name(f".{file.name}.{os.getpid()}.tmp").write_bytes(data[: len(data) // 2])
            kill()
        real(file, content)

    for module in (run_folder, checkpoint, sweep_folder):
        module.write_atomically = patched  # type: ignore[attr-defined]


def between_parent_and_child() -> None:
    from digitlab.sweep.workers.runner import Runner

    before(Runner, "_submit")


def step() -> None:
    from digitlab.training import loop
    from digitlab.training.fused import epochs as fused

    before(loop, "_refuse_divergence", skip=70)
    before(fused, "_notice_divergence", skip=70)


def checkpoint() -> None:
    half_written("checkpoint.new")


def artifact() -> None:
    from digitlab.runs import artifacts

    before(artifacts, "_write_predictions")


def delivering_artifacts() -> None:
    from digitlab.tracking.upload import Upload

    before(Upload, "_close")


def closing() -> None:
    """After the artifacts, before the status."""
    from mlflow.client import MlflowClient

    before(MlflowClient, "set_terminated")


def told() -> None:
    """The trial is FINISHED in the store; the journal does not know yet."""
    from digitlab.sweep.sweep_folder import SweepFolder

    real = SweepFolder.log

    def patched(self: SweepFolder, event: str, **details: Any) -> None:
        if event == "delivered":
            kill()
        real(self, event, **details)

    SweepFolder.log = patched  # type: ignore[method-assign]


def journal_line() -> None:
    """Half a line of the journal."""
    from digitlab.sweep.sweep_folder import SweepFolder

    real = SweepFolder.log

    def patched(self: SweepFolder, event: str, **details: Any) -> None:
        if event == "ended":
            with (self.folder / "journal.jsonl").open("a") as file:
                file.write('{"event": "ended", "numb')
            kill()
        real(self, event, **details)

    SweepFolder.log = patched  # type: ignore[method-assign]


def summarising() -> None:
    from digitlab.sweep.parent_run import ParentRun

    before(ParentRun, "summarise")


def finishing() -> None:
    from digitlab.sweep.parent_run import ParentRun

    before(ParentRun, "finish")


def run_step() -> None:
    """In the middle of an epoch: 70 steps are 3.5 epochs."""
    step()


def run_checkpoint_half_written() -> None:
    half_written("checkpoint.new", skip=2)


def run_checkpoint_written() -> None:
    """Before the renaming of the earlier one."""
    before(Path, "replace", skip=1, when=lambda file, target: target.name == "checkpoint.previous")


def run_checkpoint_half_renamed() -> None:
    """The earlier one has become the previous one, and nothing is in its place."""
    before(Path, "replace", skip=2, when=lambda file, target: target.name == "checkpoint")


def run_described() -> None:
    """The record is there, its document is not."""
    from digitlab.runs import experiment

    before(experiment, "_save_document")


CONTROLLER_PLACES: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (composing, freezing, between_parent_and_child, told, journal_line, summarising, finishing)
}
WORKER_PLACES: dict[str, Callable[[], None]] = {f.__name__: f for f in (step, checkpoint, artifact)}
STORE_PLACES: dict[str, Callable[[], None]] = {f.__name__: f for f in (delivering_artifacts, closing)}

RUN_PLACES: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (
        *(run_step, run_checkpoint_half_written, run_checkpoint_written),
        *(run_checkpoint_half_renamed, run_described),
    )
}

if place := os.environ.get("KILL_PLACE"):
    is_worker = __name__ != "__main__"
    if place in (WORKER_PLACES if is_worker else {**CONTROLLER_PLACES, **RUN_PLACES}):
        {**WORKER_PLACES, **CONTROLLER_PLACES, **RUN_PLACES}[place]()

if __name__ == "__main__":
    from digitlab.sweep.workers.executors import worker

    worker.PRELOAD.append("tests.kills.victim")
    pid_file().write_text(str(os.getpid()))
    if place in STORE_PLACES:
        from digitlab.tracking.connection.client import import_mlflow
        from digitlab.tracking.connection.store_process import STORES

        import_mlflow()
        STORE_PLACES[place]()
        STORES.fork()
    cli.main()
