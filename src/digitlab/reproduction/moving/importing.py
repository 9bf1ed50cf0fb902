"""A run of another store brought into this one: its record, its files, its times, where it came from.

What an archive brings was checked against its document. Runs nothing.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from digitlab.config import project
from digitlab.errors import TrackingError, UsageError
from digitlab.models.saved import CONFIG_FILE
from digitlab.reproduction.archive import CHECKSUMS, LOCK, Recorded
from digitlab.reproduction.moving.about import About, parse, without_sweep
from digitlab.reproduction.moving.bundle import Sweep
from digitlab.runs.describe import DIGEST_LENGTH, note, params_of, run_name, tags_of
from digitlab.runs.document import Document, RefusedDocument
from digitlab.runs.trace import Trace, to_floats
from digitlab.text import yaml_text
from digitlab.tracking import names
from digitlab.tracking.connection.location import is_made, sqlite_file
from digitlab.tracking.delivery import Delivery, bounded_store
from digitlab.tracking.leftovers import IMPORTING
from digitlab.tracking.process import this_process
from digitlab.tracking.run_folder import RunFolder, now, waiting_records
from digitlab.tracking.stored_run import StoredRun

NOT_OF_THE_RUN = (CHECKSUMS, LOCK, names.ABOUT_FILE)  # files of an archive
OF_THE_TEST = (names.MACRO_F1, names.CALIBRATION_ERROR, *names.CHOSEN.values(), names.CHOSEN_EPOCH)


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """run_id: in this store. is_new: imported by this call; else it has been here before."""

    run_id: str
    name: str
    is_new: bool


def import_run(
    recorded: Recorded, uri: str, say: Callable[[str], None], parent: StoredRun | None = None
) -> Imported:
    """parent: the own run, in this store, of the sweep that it is a trial of. It joins none that was
    made here: anybody may write an archive.

    Raises:
        RefusedDocument: it has no result, or its about.json is none.
        TrackingError: the store does not take it; it waits on this disk for `digitlab sync`.
    """
    document, trace = recorded.document, recorded.document.trace
    if trace is None or not trace.weights:
        raise RefusedDocument([f"{recorded.origin} has no result: only a finished run can be imported"])
    content = recorded.contents.get(names.ABOUT_FILE)
    about = parse(content) if content else _about(document, trace)
    if known := _known(uri, recorded.run_id):
        return Imported(known.run_id, known.name, is_new=False)
    if parent is None or names.IMPORTED_TAG not in parent.tags:
        parent, about = None, without_sweep(about)
    record = _new_record(recorded, trace, about, uri, parent)
    _write_metrics(record, recorded, trace, about)
    _write_artifacts(record.artifacts, recorded)
    return Imported(_deliver(record, about.end_time, say), about.name, is_new=True)


def import_sweep(sweep: Sweep, uri: str, say: Callable[[str], None]) -> StoredRun:
    """The sweep's own run in this store, made unless it is here already."""
    store = bounded_store(uri)
    if _is_there(uri) and (known := store.with_tag(names.PARENT_SWEEP_TAG, sweep.id)):
        return known
    record = RunFolder.create(
        _workshop(),
        study=sweep.study,
        name=sweep.name,
        tracking_uri=uri,
        params={},
        tags={
            names.KIND_TAG: "sweep",
            names.PARENT_SWEEP_TAG: sweep.id,
            names.COMMAND_TAG: sweep.command,
            names.IMPORTED_TAG: sweep.id,
            names.NOTE_TAG: f"Imported.\n\n    {sweep.command}\n",
        },
        process=this_process(),
    )
    run_id = _deliver(record, now(), say)
    return store.find(run_id)


def _is_there(uri: str) -> bool:
    """Whether the store may hold anything: the first delivery makes one that is a file."""
    file = sqlite_file(uri)
    return file is None or is_made(file)


def _known(uri: str, run_id: str) -> StoredRun | None:
    """The run itself, if this is the store that it came from, or what was imported of it before.

    Raises:
        UsageError: that still waits for its delivery.
    """
    for record in waiting_records(project.records()):
        if record.run.tags.get(names.IMPORTED_TAG) == run_id:
            raise UsageError(f"run {run_id[:8]} was imported and not delivered yet: `digitlab sync`")
    if not _is_there(uri):
        return None
    store = bounded_store(uri)
    if imported := store.with_tag(names.IMPORTED_TAG, run_id):
        return imported
    try:
        run = store.find(run_id)
    except UsageError:
        return None
    return run if run.run_id == run_id else None


def _new_record(
    recorded: Recorded, trace: Trace, about: About, uri: str, parent: StoredRun | None
) -> RunFolder:
    document = recorded.document
    origin = f"Imported: it was run `{recorded.run_id}`, trained on {document.machine['host']}."
    text = f"{origin}\n\n{note(document.command, {})}"
    own = about.tags.get(names.OWN_NOTE_TAG)
    record = RunFolder.create(
        _workshop(),
        study=document.config["study"],
        name=about.name,
        tracking_uri=uri,
        params=params_of(document),
        tags={
            **tags_of(document),
            **about.tags,
            names.WEIGHTS_TAG: trace.weights,
            names.IMPORTED_TAG: recorded.run_id,
            names.FINGERPRINT_TAG: "",  # no sweep takes it for a trial of its own
            names.NOTE_TAG: f"{own}\n\n{text}" if own else text,
        },
        dataset={
            "name": str(document.config["data"]["name"]),
            "digest": document.data["train_images"][:DIGEST_LENGTH],
            "source_type": "code",
            "source": "{}",
        },
        process=this_process(),
        parent=parent.tags[names.RECORD_TAG] if parent else None,
    )
    record.run.start_time = about.start_time
    return record


def _about(document: Document, trace: Trace) -> About:
    """Of a bare record.json, or an archive by an earlier digitlab: its times are not known."""
    here = now()
    return About(
        format=1,
        name=run_name(document.checked_config()),
        start_time=here,
        end_time=here,
        metrics={names.CHOSEN_EPOCH: float(len(trace.epochs))},
        tags={},
    )


def _write_metrics(record: RunFolder, recorded: Recorded, trace: Trace, about: About) -> None:
    """Epoch by epoch at the times that they took; the test's from the trace, which was checked."""
    at = about.start_time
    for epoch, metrics in enumerate(_epochs(recorded, trace), 1):
        at += round(1000 * metrics.get(names.EPOCH_SECONDS, 0.0))
        record.log_metrics(metrics, step=epoch, at=min(at, about.end_time))
    test = {name: about.metrics[name] for name in OF_THE_TEST if name in about.metrics}
    test |= {f"test/{name}": value for name, value in to_floats(trace.test).items()}
    chosen = int(about.metrics.get(names.CHOSEN_EPOCH, len(trace.epochs)))
    record.log_metrics(test, step=chosen, at=about.end_time)


def _epochs(recorded: Recorded, trace: Trace) -> Iterator[dict[str, float]]:
    if content := recorded.contents.get(names.EPOCHS_FILE):
        for row in csv.DictReader(io.StringIO(content.decode(), newline="")):
            yield {name: float(text) for name, text in row.items() if name != "epoch"}
    else:
        yield from map(to_floats, trace.epochs)


def _write_artifacts(folder: Path, recorded: Recorded) -> None:
    contents = {k: v for k, v in recorded.contents.items() if k not in NOT_OF_THE_RUN}
    contents.setdefault(CONFIG_FILE, yaml_text.dump(recorded.document.config).encode())
    for name, content in contents.items():  # under fixed names: see archive.py
        (folder / name).write_bytes(content)


def _deliver(record: RunFolder, end_time: int, say: Callable[[str], None]) -> str:
    """The id in the store. Raises TrackingError."""
    record.finish("FINISHED")
    record.run.end_time = end_time
    record.save()
    folder = project.records() / record.folder.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    record.folder.rename(folder)  # whole: a kill before it leaves nothing that is taken for a run
    record.release()
    record.folder.parent.rmdir()
    moved = RunFolder.load(folder)
    if not (moved.try_to_own() and Delivery(moved, say).finish() and moved.delivered.run_id):
        raise TrackingError(f"{moved.run.name!r} waits on this disk: `digitlab sync` delivers it")
    moved.release()
    return moved.delivered.run_id


def _workshop() -> Path:
    """Where this process puts a record together; what a kill leaves there, `doctor --clean` removes."""
    return project.mlruns() / f"{IMPORTING}{os.getpid()}"
