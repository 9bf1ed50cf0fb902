"""How good the readings of pictures are whose folders are named by their classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digitlab.inference.images import STDIN
from digitlab.training.evaluation import Integers, confusion_matrix

MAX_WORST = 10
MAX_COLUMNS = 20  # classes of a table


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledReading:
    """truth, prediction: classes. share: the probability given to the truth."""

    file: str
    truth: int
    prediction: int
    share: float


def class_folders(paths: Sequence[str], names: Sequence[str]) -> list[str]:
    """A folder with folders that are named by classes stands for these; anything else for itself."""
    found = []
    for name in paths:
        inner = sorted(file for file in _inside(name) if _class_of(file.name, names) is not None)
        found += [str(file) for file in inner if file.is_dir()] or [name]
    return found


def truth_of(file: str, names: Sequence[str]) -> int | None:
    """The class by whose name, or number, the file's folder is called; None if by no such name."""
    return None if file == STDIN else _class_of(Path(file).absolute().parent.name, names)


def summary(readings: Sequence[LabelledReading], names: Sequence[str]) -> dict[str, object]:
    """For JSON: accuracy in [0, 1] (null of none), confusion with a row for each true class."""
    right = sum(reading.truth == reading.prediction for reading in readings)
    return {
        "accuracy": right / len(readings) if readings else None,
        "right": right,
        "read": len(readings),
        "classes": list(names),
        "confusion": _confusion(readings, len(names)).tolist(),
        "worst": [reading.file for reading in _worst(readings)],
    }


def lines(readings: Sequence[LabelledReading], names: Sequence[str]) -> Iterator[str]:
    """The same for people."""
    if not readings:
        yield "accuracy: none of the pictures was read"
        return
    right = sum(reading.truth == reading.prediction for reading in readings)
    yield f"accuracy {100 * right / len(readings):.2f} % ({right} of {len(readings)} right)"
    confusion = _confusion(readings, len(names))
    yield from (_frequent if len(names) > MAX_COLUMNS else _table)(confusion, names)
    if worst := _worst(readings):
        yield "the worst, by the probability that the right class was given:"
    for reading in worst:
        read = f"read as {names[reading.prediction]}, is {names[reading.truth]}"
        yield f"  {reading.file}  {read} ({100 * reading.share:.1f} %)"


def _table(confusion: Integers, names: Sequence[str]) -> Iterator[str]:
    width = max(6, *map(len, names))
    yield "confusion, a row for each folder, a column for each prediction:"
    yield " ".join([" " * width, *(f"{name:>{width}}" for name in names)])
    for name, row in zip(names, confusion, strict=True):
        yield " ".join([f"{name:>{width}}", *(f"{count:>{width}}" for count in row)])


def _frequent(confusion: Integers, names: Sequence[str]) -> Iterator[str]:
    """Of more classes than a table on a terminal has room for."""
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_WORST]
    yield "the most frequent mistakes (--json has all of them):"
    for row, column in (divmod(int(place), len(names)) for place in order):
        if count := wrong[row, column]:
            yield f"  {names[row]} read as {names[column]}: {count}"


def _inside(name: str) -> list[Path]:
    try:
        return list(Path(name).iterdir())
    except (OSError, ValueError):
        return []


def _class_of(folder: str, names: Sequence[str]) -> int | None:
    if folder in names:
        return list(names).index(folder)
    numbers = [str(number) for number in range(len(names))]
    return numbers.index(folder) if folder in numbers else None


def _confusion(readings: Sequence[LabelledReading], num_classes: int) -> Integers:
    return confusion_matrix(
        np.array([reading.truth for reading in readings], dtype=np.int64),
        np.array([reading.prediction for reading in readings], dtype=np.int64),
        num_classes=num_classes,
    )


def _worst(readings: Sequence[LabelledReading]) -> list[LabelledReading]:
    wrong = [reading for reading in readings if reading.truth != reading.prediction]
    return sorted(wrong, key=lambda reading: reading.share)[:MAX_WORST]
