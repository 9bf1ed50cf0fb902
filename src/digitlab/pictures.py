"""The pictures of a recorded run, drawn afterwards from what it left in its store. Knows no torch."""

import csv
import tempfile
from pathlib import Path

from digitlab import project
from digitlab.datafiles import class_names, digest, read_verified
from digitlab.errors import UsageError
from digitlab.tracking.runs import StoredRun
from digitlab.tracking.store import RunStore


def draw_missing(store: RunStore, run: StoredRun) -> list[str]:
    """Draw the pictures that the run does not have and add them to it; returns their names.

    Raises:
        UsageError: the run has not finished, or the test images are others than it was tested on.
    """
    from digitlab.plots import PICTURES, Answers, draw_pictures

    there = {path for path, _ in store.artifacts(run)}
    missing = [name for name in PICTURES if name not in there]
    if not missing:
        return []
    if not {"metrics.csv", "predictions.parquet"} <= there:
        raise UsageError(f"run {run.short_id} is {run.status}: it has left no predictions to draw")
    name = run.params["data.name"]
    root = run.params["data.root"]
    arrays, _ = read_verified(name, project.data_root(None if root == "null" else root))
    images, _ = arrays["test"]
    if digest(images) != run.tags.get("digitlab.data.test_images"):
        raise UsageError(
            f"the test images of {name} are not those that run {run.short_id} was tested on"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(store.download(run, "predictions.parquet", folder))
        columns = {key: table[key].to_numpy() for key in ("label", "prediction", "loss")}
        with store.download(run, "metrics.csv", folder).open(newline="") as handle:
            epochs = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(handle)]
        drawn = folder / "drawn"
        drawn.mkdir()
        draw_pictures(
            drawn,
            epochs=epochs,
            answers=Answers(columns["label"], columns["prediction"], columns["loss"]),
            images=images,
            class_names=class_names(name),
        )
        for picture in PICTURES:
            if picture not in missing:
                (drawn / picture).unlink()
        store.add_artifacts(run, drawn)
    return missing
