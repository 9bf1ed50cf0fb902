"""The state of a training between two steps, in one file: no code, written atomically, checked.

    checkpoint            SHA-256 of the rest (32 bytes), then safetensors with JSON in its metadata
    checkpoint.previous   the one before it
    checkpoint.new        the next one, before the two above are renamed

A kill at any moment leaves one of them whole; a single flipped bit in one is noticed. `Checkpoints`
decides when a training is saved.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors.torch import load, save
from torch import Tensor

from digitlab.config.schema import CheckpointConfig
from digitlab.errors import NotSaved
from digitlab.runs.interrupts import Interrupts
from digitlab.text.files import write_atomically
from digitlab.text.formats import Format, LaterFormat
from digitlab.training.loop import EpochReport, Position, paused
from digitlab.training.resumable import Resumable, TrainingState

FILE, PREVIOUS, NEW = "checkpoint", "checkpoint.previous", "checkpoint.new"
PARTS = ("model", "optimizer", "best")
DIGEST_BYTES = 32
FORMAT = Format(unnumbered=1)  # of the JSON, with `tensors` beside it while it is upgraded

_HISTORY = TypeAdapter(list[EpochReport])


def save_checkpoint(folder: Path, state: TrainingState) -> None:
    """Raises NotSaved if it cannot be written; the earlier checkpoints stay whole."""
    content = _encode(state)
    file, new = folder / FILE, folder / NEW
    try:
        write_atomically(new, content)
        if file.exists():
            file.replace(folder / PREVIOUS)
        new.replace(file)
        _sync_folder(folder)
    except OSError as error:
        new.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
        raise NotSaved(
            f"no checkpoint can be written to {file}: {error.strerror} "
            f"({len(content) // 1000 + 1} kB are needed, {free // 1000} kB are free); "
            "make room, then go on"
        ) from error


def load_checkpoint(folder: Path, say: Callable[[str], None]) -> TrainingState | None:
    """The newest checkpoint that is whole; None without one. `say` is given what is damaged.

    For the owner of the folder: it removes what a process left that was killed while writing.

    Raises:
        LaterFormat: a later digitlab wrote it. It stays as it is.
    """
    for remains in (folder / NEW, *folder.glob(f".{NEW}.*")):
        remains.unlink(missing_ok=True)
    for name, consequence in ((FILE, "the previous one is used"), (PREVIOUS, "training begins anew")):
        file = folder / name
        try:
            state = _read(file)
            file.replace(folder / FILE)  # a damaged one must not become the previous of the next
            return state
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            if name == FILE and not (folder / PREVIOUS).exists():
                consequence = "training begins anew"
            say(f"the checkpoint {file} is damaged ({error}): {consequence}")
    return None


def check_version(folder: Path) -> None:
    """Raises LaterFormat if a later digitlab wrote a checkpoint here. Changes nothing."""
    for name in (FILE, PREVIOUS):
        with contextlib.suppress(OSError, ValueError):  # `load_checkpoint` says what is damaged
            _read(folder / name)


def _read(file: Path) -> TrainingState:
    try:
        return _decode(file.read_bytes())
    except LaterFormat as error:
        raise LaterFormat(f"the checkpoint {file} cannot be read: {error}") from None


def _encode(state: TrainingState) -> bytes:
    position = state.position
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part in PARTS
        for name, tensor in getattr(state, part).items()
    }
    if position.step:
        tensors["position/losses"] = torch.stack(position.losses).cpu()
        tensors["position/predictions"] = torch.cat(position.predictions).to("cpu", torch.int16)
        tensors["position/batches"] = torch.tensor([len(p) for p in position.predictions])
    if position.dropout is not None:
        tensors["position/dropout"] = position.dropout
    about = {
        "identity": state.identity,
        "epoch": position.epoch,
        "step": position.step,
        "seconds": position.seconds,
        "history": [dataclasses.asdict(report) for report in state.history],
        "best_epoch": state.best_epoch,
    }
    content = save(tensors, metadata={"state": json.dumps(FORMAT.numbered(about))})
    return hashlib.sha256(content).digest() + content


def _decode(raw: bytes) -> TrainingState:
    """Raises ValueError if a single bit is not as it was written, LaterFormat if this is too early."""
    digest, content = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
    if not raw:
        raise ValueError("it is empty")
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(f"its SHA-256 is not {digest.hex()[:16]}...")
    values = json.loads(_metadata(content)["state"])
    about = FORMAT.upgraded(values | {"tensors": load(content)})
    tensors = about["tensors"]
    position = _named(tensors, "position")
    predictions = position.get("predictions", torch.empty(0)).long()
    batches = position.get("batches", torch.empty(0)).tolist()
    return TrainingState(
        identity=about["identity"],
        position=Position(
            epoch=about["epoch"],
            step=about["step"],
            losses=list(position.get("losses", torch.empty(0)).unbind()),
            predictions=list(torch.split(predictions, batches)) if batches else [],
            seconds=about["seconds"],
            dropout=position.get("dropout"),
        ),
        history=_HISTORY.validate_python(about["history"]),
        best_epoch=about["best_epoch"],
        **{part: _named(tensors, part) for part in PARTS},
    )


def _named(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _metadata(content: bytes) -> dict[str, str]:
    """safetensors' Python API reads metadata from files only: 8 bytes of length, then JSON."""
    (length,) = struct.unpack("<Q", content[:8])
    metadata: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return metadata


def _sync_folder(folder: Path) -> None:
    """Without it a power cut may leave the folder as it was before the renaming."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Checkpoints:
    """Decides when a training is saved: as its knobs say, and before it stops at a signal."""

    def __init__(
        self,
        folder: Path,
        training: Resumable,
        *,
        identity: dict[str, str],
        interrupts: Interrupts,
    ) -> None:
        self._folder, self._training, self._identity = folder, training, identity
        self._interrupts = interrupts
        self._config: CheckpointConfig = training.config.checkpoint
        self._saved_at = time.monotonic()
        self._rests_until = 0.0
        self._saved_steps = 0  # how many steps the checkpoint on the disk has done

    def restore(self, say: Callable[[str], None], *, force: bool = False) -> None:
        """Continue from the folder's checkpoint, if one fits; else `say` is given the reason.

        force: even if configuration, data, source or arithmetic are others.
        """
        state = load_checkpoint(self._folder, say)
        if state is None:
            return
        differing = [k for k, v in self._identity.items() if state.identity.get(k) != v]
        if differing and not force:
            say(f"the checkpoint is of another {' and '.join(differing)}: training begins anew")
            return
        self._training.restore(state)
        self._saved_steps = self._training.steps_done

    def before_step(self, position: Position) -> None:
        """Save if it is due, or if the training is about to stop at a signal."""
        is_inside = position.step > 0  # at the end of an epoch `after_epoch` has saved it
        if (is_inside and self.is_due(position)) or self._is_asked_to_stop:
            self.save(paused(position, self._training.device) if is_inside else position)
        self._interrupts.check()

    def after_epoch(self, report: EpochReport) -> None:
        following = Position(epoch=report.epoch + 1)
        if self.is_due(following) or self._is_asked_to_stop:
            self.save(following)

    @property
    def _is_asked_to_stop(self) -> bool:
        return self._interrupts.signal_number is not None

    def rest(self, seconds: float) -> None:
        """Save nothing by time for so long; by number of steps or by epoch as before."""
        self._rests_until = time.monotonic() + seconds

    def is_due(self, position: Position) -> bool:
        """Whether it is time to save. Of the position only epoch and step count."""
        every_steps, every_seconds = self._config.every_steps, self._config.every_seconds
        if every_steps is not None and self._training.steps_at(position) % every_steps == 0:
            return True
        if every_seconds == 0:
            return position.step == 0
        return time.monotonic() >= max(self._saved_at + every_seconds, self._rests_until)

    def save(self, position: Position) -> None:
        """Save at a position as `Resumable.state` takes it, unless the disk has that or a later one.

        A continued run reports its earlier epochs again, without training them.
        """
        steps = self._training.steps_at(position)
        if steps > self._saved_steps:
            save_checkpoint(self._folder, self._training.state(position, self._identity))
            self._saved_at, self._saved_steps = time.monotonic(), steps
