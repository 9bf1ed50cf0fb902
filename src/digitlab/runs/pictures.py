"""A run's pictures, drawn at its end or afterwards, from its answers to the test images. No torch."""

import contextlib
import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from digitlab.config import project
from digitlab.config.checking import recorded_data
from digitlab.config.data_schema import NUM_TRAIN
from digitlab.data.files import Bytes, class_names, read_verified
from digitlab.data.sources import read
from digitlab.errors import DataError, UsageError
from digitlab.models.signature import MODEL_FILE, parse
from digitlab.runs.artifacts import Answers, epoch_rows, read_answers
from digitlab.tracking.names import EPOCHS_FILE, PREDICTIONS_FILE, TEST_IMAGES_TAG
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun

if TYPE_CHECKING:
    from digitlab.data.splits import Dataset
    from digitlab.training.evaluation import Evaluation
    from digitlab.training.loop import EpochReport


def draw_at_end(
    folder: Path, dataset: "Dataset", history: "Sequence[EpochReport]", evaluation: "Evaluation"
) -> None:
    """At the root of the run's artifacts, where MLflow compares them."""
    from digitlab.runs.plots import draw_pictures

    draw_pictures(
        folder,
        epochs=epoch_rows(history),
        answers=Answers(evaluation.labels, evaluation.predictions, evaluation.losses),
        images=_channels_last(dataset.test.images.cpu().numpy()),
        class_names=dataset.class_names,
    )


def _channels_last(images: Bytes) -> Bytes:
    return images if images.ndim == 3 else np.moveaxis(images, 1, -1)


def draw_missing(store: RunStore, run: StoredRun, data_root: str | None = None) -> list[str]:
    """Draw the pictures that the run does not have and add them to it; returns their names.

    data_root: see tested_images.

    Raises:
        UsageError: the run has not finished, or the test images are others than it was tested on.
    """
    from digitlab.runs.plots import PICTURES, draw_pictures

    stored = {path for path, _ in store.artifacts(run)}
    missing = [name for name in PICTURES if name not in stored]
    if not missing:
        return []
    answers, images = recorded_answers(store, run), tested_images(run, data_root)
    table = store.content(run, EPOCHS_FILE)
    with _damage_named(run):
        rows = csv.DictReader(io.StringIO(table.decode(), newline=""))
        epochs = [{name: float(text) for name, text in row.items()} for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        drawn = Path(scratch)
        draw_pictures(
            drawn,
            epochs=epochs,
            answers=answers,
            images=images,
            class_names=class_names_of(store, run),
        )
        for picture in PICTURES:
            if picture not in missing:
                (drawn / picture).unlink()
        store.add_artifacts(run, drawn)
    return missing


def recorded_answers(store: RunStore, run: StoredRun) -> Answers:
    """Raises UsageError if the run has no predictions, DataError if they are damaged."""
    content = store.content(run, PREDICTIONS_FILE)
    with _damage_named(run):
        return read_answers(content)


@contextlib.contextmanager
def _damage_named(run: StoredRun) -> Iterator[None]:
    """Raises DataError with the run's id and the command that makes the artifact anew."""
    try:
        yield
    except (DataError, ValueError, TypeError) as error:
        raise DataError(
            f"an artifact of run {run.short_id} cannot be read ({error}): "
            f"`digitlab reproduce {run.short_id}` makes it anew, in a run of its own"
        ) from None


def tested_images(run: StoredRun, data_root: str | None) -> Bytes:
    """The images (N, H, W) or (N, H, W, 3) that the run was tested on, from the data on this machine.

    data_root: the folder that the run's own command named; None: where this machine has its data.
    A store is not trusted to name a folder; a user's own data are looked for where they lay.

    Raises:
        UsageError: this machine has other test images.
        DataError: it has none.
    """
    name, lay = run.params["data.name"], run.params.get("data.root", "null")
    try:
        if name in NUM_TRAIN:
            arrays, digests = read_verified(name, project.data_root(data_root))
            images = arrays["test"][0]
        else:
            data, digests = read(recorded_data(run.params))
            images = data.test[0]
    except DataError as error:
        where = f"; the run had its data in {lay}: DIGITLAB_DATA names a folder here"
        raise DataError(f"{error}{where if lay != 'null' else ''}") from None
    if digests["test_images"] != run.tags.get(TEST_IMAGES_TAG):
        raise UsageError(
            f"the test images of {name} are not those that run {run.short_id} was tested on"
        )
    return images


def class_names_of(store: RunStore, run: StoredRun) -> list[str]:
    """Raises UsageError if the run has no model that names them, DataError if that is damaged."""
    if (name := run.params["data.name"]) in NUM_TRAIN:
        return class_names(name)
    content = store.content(run, MODEL_FILE)
    with _damage_named(run):
        return parse(content).class_names
