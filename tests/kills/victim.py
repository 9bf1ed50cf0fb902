"""`digitlab` that kills itself once, with SIGKILL, at a place that the environment names.

    KILL_PLACE   where: a key of PLACES
    KILL_WHO     controller, worker or both (the controller first)
    KILL_MARK    a file: made before the kill, so that it happens once

Started as `python -m tests.kills.victim`, this module is imported by workers too, as any main module.
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


def before(owner: Any, name: str, skip: int = 0) -> None:
    """Kill before the call number `skip` of a function."""
    real, calls = getattr(owner, name), [0]

    def patched(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] > skip:
            kill()
        return real(*arguments, **named)

    setattr(owner, name, patched)


def composing() -> None:
    from digitlab.sweep import planning

    before(planning, "_trial", skip=1)


def freezing() -> None:
    half_written("manifest.json")


def half_written(name: str) -> None:
    """Kill while a file is written: half of it is there, under its temporary name."""
    from digitlab import checkpoint, record
    from digitlab.sweep import manifest

    real = record.write_atomically

    def patched(file: Path, content: str | bytes) -> None:
        if file.name == name:
            data = content.encode() if isinstance(content, str) else content
            file.with_name(f".{file.name}.{os.getpid()}.tmp").write_bytes(data[: len(data) // 2])
            kill()
        real(file, content)

    for module in (record, checkpoint, manifest):
        module.write_atomically = patched  # type: ignore[attr-defined]


def between_parent_and_child() -> None:
    from digitlab.sweep.runner import Runner

    before(Runner, "_submit")


def step() -> None:
    from digitlab import training

    before(training, "_refuse_divergence", skip=70)


def checkpoint() -> None:
    half_written("checkpoint.safetensors")


def artifact() -> None:
    from digitlab import artifacts

    before(artifacts, "_write_predictions")


def delivering_artifacts() -> None:
    from digitlab.tracking.store import RunStore

    before(RunStore, "_close")


def closing() -> None:
    """After the artifacts, before the status."""
    from mlflow.client import MlflowClient

    before(MlflowClient, "set_terminated")


def told() -> None:
    """The trial is FINISHED in the store; the journal does not know yet."""
    from digitlab.sweep.manifest import SweepFolder

    real = SweepFolder.log

    def patched(self: SweepFolder, event: str, **details: Any) -> None:
        if event == "ended":
            kill()
        real(self, event, **details)

    SweepFolder.log = patched  # type: ignore[method-assign]


def journal_line() -> None:
    """Half a line of the journal."""
    from digitlab.sweep.manifest import SweepFolder

    real = SweepFolder.log

    def patched(self: SweepFolder, event: str, **details: Any) -> None:
        if event == "ended":
            with (self.folder / "journal.jsonl").open("a") as file:
                file.write('{"event": "ended", "numb')
            kill()
        real(self, event, **details)

    SweepFolder.log = patched  # type: ignore[method-assign]


def summarising() -> None:
    from digitlab.sweep.own_run import OwnRun

    before(OwnRun, "summarise")


def finishing() -> None:
    from digitlab.sweep.own_run import OwnRun

    before(OwnRun, "finish")


CONTROLLER_PLACES: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (composing, freezing, between_parent_and_child, told, journal_line, summarising, finishing)
}
WORKER_PLACES: dict[str, Callable[[], None]] = {
    f.__name__: f for f in (step, checkpoint, artifact, delivering_artifacts, closing)
}

if place := os.environ.get("KILL_PLACE"):
    is_worker = __name__ == "__mp_main__"
    if place in (WORKER_PLACES if is_worker else CONTROLLER_PLACES):
        {**WORKER_PLACES, **CONTROLLER_PLACES}[place]()

if __name__ == "__main__":
    pid_file().write_text(str(os.getpid()))
    cli.main()
