"""`digitlab predict`: what a trained model reads on pictures. Knows no MLflow."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.color import Color
from rich.style import Style
from rich.text import Text  # noqa: TID251 (pixels, nothing of a user)

from digitlab.data.image_files import Bytes, brought_to
from digitlab.errors import UsageError
from digitlab.inference import scoring
from digitlab.inference.images import expand, read
from digitlab.inference.normalising import Normalised
from digitlab.inference.preparation import colour_of, prepared
from digitlab.inference.trained_model import TrainedModel
from digitlab.models.saved import Classifier
from digitlab.text.terminal import console, echo, echo_json

BATCH = 1000  # images held at once, however many files there are
PIXELS_AT_ONCE = 50_000_000  # of large ones fewer
MAX_NAMED = 10  # classes: of more, the most probable ones have a bar
DRAWN_SIDE = 28  # characters across; what is larger is drawn smaller
MAX_DRAWN = 10  # pictures on a terminal
BAR = 24  # characters of a probability of 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Of one file. found: what the model was given. error: why it was not read."""

    file: str
    found: Normalised | None = None
    probabilities: npt.NDArray[np.float32] | None = None
    error: str | None = None


def predict_files(model: TrainedModel, paths: Sequence[str], *, as_given: bool, as_json: bool) -> int:
    """Print what the model reads on each file; returns 2 if one was refused, else 0.

    as_given: pictures of the model's shape are taken pixel by pixel.
    """
    names = model.signature.class_names
    readings = read_files(model.classifier, expand(paths), as_given=as_given)
    if as_json:
        found = list(readings)
        echo_json([_json(reading, names) for reading in found])
        return _exit_code(found)
    out, refused = console(), False
    for number, reading in enumerate(readings):
        if reading.error:
            refused = True
            _show_refused(reading)
        else:
            if out.is_terminal and number < MAX_DRAWN:
                out.print(_drawn(reading, names))
            echo(_line(reading, names))
    return 2 if refused else 0


def score_files(model: TrainedModel, paths: Sequence[str], *, as_given: bool, as_json: bool) -> int:
    """The same for files in folders that are named by their classes: print how often it is right."""
    names = model.signature.class_names
    files = expand(scoring.class_folders(paths, names))
    readings = list(read_files(model.classifier, files, as_given=as_given))
    truths = [scoring.truth_of(reading.file, names) for reading in readings]
    for place, (reading, truth) in enumerate(zip(readings, truths, strict=True)):
        if truth is None and not reading.error:
            why = f"its folder is named by none of the classes {', '.join(names)}"
            readings[place] = Reading(file=reading.file, error=why)
    labelled = [
        scoring.LabelledReading(
            file=reading.file,
            truth=truth,
            prediction=int(reading.probabilities.argmax()),
            share=float(reading.probabilities[truth]),
        )
        for reading, truth in zip(readings, truths, strict=True)
        if truth is not None and reading.probabilities is not None
    ]
    if as_json:
        pictures = [
            _json(reading, names) | {"truth": None if truth is None else names[truth]}
            for reading, truth in zip(readings, truths, strict=True)
        ]
        echo_json(scoring.summary(labelled, names) | {"pictures": pictures})
    else:
        for reading in readings:
            if reading.error:
                _show_refused(reading)
        for line in scoring.lines(labelled, names):
            echo(line)
    return _exit_code(readings)


def _show_refused(reading: Reading) -> None:
    echo(f"digitlab: {reading.file}: {reading.error}", err=True)


def _exit_code(readings: Sequence[Reading]) -> int:
    return 2 if any(reading.error for reading in readings) else 0


def read_files(classifier: Classifier, files: Iterable[str], *, as_given: bool) -> Iterator[Reading]:
    """In the files' order; a file that is refused costs none of the others."""
    size = max(min(BATCH, PIXELS_AT_ONCE // math.prod(classifier.signature.image_shape)), 1)
    for batch in _batches(files, size):
        readings = [_prepare(file, classifier, as_given=as_given) for file in batch]
        seen = [reading.found.image for reading in readings if reading.found is not None]
        answers = iter(classifier.predict(np.stack(seen)) if seen else ())
        for reading in readings:
            if reading.found is None:
                yield reading
            else:
                yield dataclasses.replace(reading, probabilities=next(answers))


def _batches(files: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    """Python 3.12 has itertools.batched for it."""
    rest = iter(files)
    while batch := tuple(itertools.islice(rest, size)):
        yield batch


def _prepare(file: str, classifier: Classifier, *, as_given: bool) -> Reading:
    try:
        picture = read(file, colour_of(classifier))
        return Reading(file=file, found=prepared(picture, classifier, as_given=as_given))
    except UsageError as error:
        return Reading(file=file, error=str(error))
    except Exception as error:  # whatever one picture leads to, the others are read
        return Reading(file=file, error=f"it cannot be read: {type(error).__name__}: {error}")


def doubts(found: Normalised, probabilities: npt.NDArray[np.float32]) -> list[str]:
    """Of the picture, and of what the model says of it. probabilities: (classes,)."""
    best = float(probabilities.max())
    unsure = [] if best > 0.5 else [f"the model gives its best reading {100 * best:.0f} % only"]
    return [*found.doubts, *unsure]


def _line(reading: Reading, names: Sequence[str]) -> str:
    """`seven.png  7  (99.2 %, then 1: 0.5 %, 9: 0.2 %)  dark ink on bright paper`."""
    assert reading.probabilities is not None, "it was read"
    assert reading.found is not None, "it was read"
    order = np.argsort(-reading.probabilities, kind="stable")
    first, *others = (f"{100 * reading.probabilities[place]:.1f} %" for place in order[:3])
    then = ", ".join(f"{names[p]}: {text}" for p, text in zip(order[1:3], others, strict=True))
    remarks = [reading.found.told_from]
    remarks += [f"{part} left out" for part in reading.found.left_out]
    remarks += [f"in doubt: {doubt}" for doubt in doubts(reading.found, reading.probabilities)]
    return f"{reading.file}  {names[order[0]]}  ({first}, then {then})  {'; '.join(remarks)}"


def _json(reading: Reading, names: Sequence[str]) -> dict[str, object]:
    """`label` is `prediction` under the name that it had first."""
    content: dict[str, object] = {"file": reading.file, "prediction": None, "label": None}
    content |= {"probabilities": None, "error": reading.error}
    if reading.probabilities is not None and reading.found is not None:
        content["prediction"] = content["label"] = names[int(reading.probabilities.argmax())]
        content["probabilities"] = {
            name: float(p) for name, p in zip(names, reading.probabilities, strict=True)
        }
        content["ink"] = reading.found.told_from
        content["left_out"] = list(reading.found.left_out)
        content["doubts"] = doubts(reading.found, reading.probabilities)
    return content


def _drawn(reading: Reading, names: Sequence[str]) -> Text:
    """What the model saw, two rows of pixels a line, and a bar for each class beside it."""
    assert reading.found is not None, "it was read"
    assert reading.probabilities is not None, "it was read"
    image = _small(reading.found.image)
    order = list(range(len(names)))
    if len(names) > MAX_NAMED:
        order = np.argsort(-reading.probabilities, kind="stable")[:MAX_NAMED].tolist()
    width, first = max(len(names[place]) for place in order), 2 if len(image) >= DRAWN_SIDE else 0
    text = Text()
    for line in range(max(len(image) // 2, first + len(order))):
        rows = image[2 * line : 2 * line + 2]
        for above, below in zip(*rows, strict=True) if len(rows) else ():
            colours = (Color.from_rgb(*map(int, pixel)) for pixel in (above, below))
            text.append("▀", Style(color=next(colours), bgcolor=next(colours)))
        text.append("" if len(rows) else " " * image.shape[1])
        if 0 <= (place := line - first) < len(order):
            share, name = float(reading.probabilities[order[place]]), names[order[place]]
            text.append(f"   {name:>{width}} {'█' * round(BAR * share):{BAR}} {100 * share:5.1f} %")
        text.append("\n")
    return text


def _small(image: Bytes) -> Bytes:
    """In colour (H, W, 3), of an even height and at most DRAWN_SIDE pixels a side."""
    height, width = image.shape[:2]
    scale = min(1.0, DRAWN_SIDE / max(height, width))
    shape = max(round(height * scale / 2), 1) * 2, max(round(width * scale), 1)
    return brought_to(image, (3, *shape))
