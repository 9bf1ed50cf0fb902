"""The epochs of a recorded run, wherever they are kept. Knows no pandas."""

import csv
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from digitlab.tracking import names
from digitlab.tracking.stored_run import StoredRun

if TYPE_CHECKING:
    from digitlab.tracking.run_folder import RunFolder
    from digitlab.tracking.store import RunStore

OF_EPOCHS = (
    *(names.TRAIN_LOSS, names.TRAIN_ACCURACY, names.VALIDATION_LOSS, names.VALIDATION_ACCURACY),
    *(names.LEARNING_RATE, names.EPOCH_SECONDS, names.IMAGES_PER_SECOND),
)


def epochs_of(
    run: StoredRun, record: "RunFolder | None", store: "Callable[[], RunStore]"
) -> list[dict[str, float]]:
    """For each epoch, from 1, its number as `epoch` and its metrics.

    record: of a run that is not delivered. Of a finished run one file is read, of another the store's
    metrics.
    """
    if record:
        lines = [(line["step"], line["metrics"]) for line in record.metric_lines()]
        return _merged((step, name, value) for step, row in lines for name, value in row.items())
    opened = store()
    if content := opened.contents(run, [names.EPOCHS_FILE]).get(names.EPOCHS_FILE):
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        return [{name: _number(name, text) for name, text in row.items()} for row in rows]
    recorded = [name for name in OF_EPOCHS if name in run.metrics]
    return _merged(
        (step, name, value) for name in recorded for step, value in opened.history(run, name)
    )


def _merged(points: Iterable[tuple[int, str, float]]) -> list[dict[str, float]]:
    epochs: dict[int, dict[str, float]] = {}
    for step, name, value in points:
        if name in OF_EPOCHS:
            epochs.setdefault(step, {"epoch": step})[name] = value
    return [epochs[step] for step in sorted(epochs)]


def _number(name: str, text: str) -> float:
    return int(text) if name == "epoch" else float(text)
