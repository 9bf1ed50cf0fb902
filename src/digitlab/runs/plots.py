"""The pictures of one run, and how every figure is saved: with matplotlib's Figure, not pyplot's state.

Margins are given, in inches: matplotlib's constrained layout draws everything twice to find them, and
a sweep of small networks would spend most of its time on it. Knows no torch.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.text import Text

from digitlab.data.files import Bytes
from digitlab.runs.artifacts import Answers
from digitlab.tracking.names import CONFUSION_PICTURE, CURVES_PICTURE, MISTAKES_PICTURE, VALIDATION_LOSS

# Okabe and Ito's colours, told apart with any colour vision.
TRAIN_COLOUR, VALIDATION_COLOUR = "#0072B2", "#D55E00"
NUM_SHOWN = 40
COLUMNS = 10
CELL = 0.3  # inches: a class of a confusion matrix, with counts
LARGEST_SIDE = 12.0  # inches: of a confusion matrix
NUM_FREQUENT = 5  # mistakes that are named where counts have no room
MAX_LETTERS, MAX_CAPTION = 24, 16  # of a class's name, of a caption below an image
PICTURES = (CURVES_PICTURE, CONFUSION_PICTURE, MISTAKES_PICTURE)

# Options of savefig by file ending, so that the same figure gives the same file.
FORMS: dict[str, dict[str, Any]] = {
    ".png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 1}},  # 5 ms quicker
    ".pdf": {"metadata": {"CreationDate": None}},
    ".svg": {"metadata": {"Date": None}},
}
TITLE_SIZE = 9  # points; a letter is about 0.6 of it wide
Epochs = Sequence[Mapping[str, float]]  # rows of metrics.csv


def draw_pictures(
    folder: Path, *, epochs: Epochs, answers: Answers, images: Bytes, class_names: Sequence[str]
) -> None:
    """All PICTURES of a run into `folder`. images: of the test split, (N, H, W) or (N, H, W, 3)."""
    curves, confusion, mistakes = (folder / name for name in PICTURES)
    draw_learning_curves(epochs, curves)
    draw_confusion_matrix(answers, class_names, confusion)
    draw_worst_mistakes(answers, images, class_names, mistakes)


def draw_learning_curves(epochs: Epochs, file: Path) -> None:
    """Loss (nats) and accuracy (%) of training and validation by epoch."""
    figure = _figure(9, 3.6, left=0.65, right=0.15, bottom=0.5, top=0.12, wspace=0.2)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    numbers = [epoch["epoch"] for epoch in epochs]
    curves = [("train", "training, while it learns", TRAIN_COLOUR, "o")]
    if VALIDATION_LOSS in epochs[0]:
        curves.append(("validation", "validation", VALIDATION_COLOUR, "s"))
    for split, label, colour, marker in curves:
        style = {"label": label, "color": colour, "marker": marker, "markersize": 3.5}
        loss_axes.plot(numbers, [epoch[f"{split}/loss"] for epoch in epochs], **style)
        accuracy_axes.plot(numbers, [100 * epoch[f"{split}/accuracy"] for epoch in epochs], **style)
    loss_axes.set(xlabel="epoch", ylabel="cross-entropy loss (nats)", ylim=(0, None))
    accuracy_axes.set(xlabel="epoch", ylabel="accuracy (%)")
    for axes in (loss_axes, accuracy_axes):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    save(figure, file)


def draw_confusion_matrix(answers: Answers, class_names: Sequence[str], file: Path) -> None:
    """Counts in every cell that has room for them; the colour shows the share of the true class.

    Of many classes as many names stand at the sides as can be read, and frequent mistakes above.
    """
    num_classes = len(class_names)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (answers.labels, answers.predictions), 1)
    side = min(max(5.0, CELL * num_classes), LARGEST_SIDE)  # inches
    has_counts = side / num_classes >= CELL
    letters = 10.0 if has_counts and num_classes <= 10 else 7.0 if has_counts else 6.0  # points
    every = math.ceil(num_classes * letters * 1.4 / 72 / (0.85 * side))
    names = [_shortened(name, MAX_LETTERS) for name in class_names]
    longest = max(map(len, names))
    names_width = 0.008 * letters * longest  # inches, about
    frequent = [] if has_counts else _most_frequent(confusion, names)
    figure = _figure(
        side + 1.2,
        side + 0.6 + 0.15 * len(frequent),
        left=0.5 + names_width,
        right=0.05,
        bottom=0.5 + names_width,
        top=0.4 + 0.15 * len(frequent),
    )
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.35, vmin=0, vmax=1))
    for row, column in zip(*np.nonzero(confusion), strict=True) if has_counts else ():
        colour = "white" if share[row, column] > 0.5 else "black"
        text = str(confusion[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=min(letters, 8))
    ticks = range(0, num_classes, every)
    rotation = 90 if not has_counts else 45 if longest > 2 else 0
    anchored: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor"} if rotation == 45 else {}
    axes.set_xticks(ticks, names[::every], rotation=rotation, fontsize=letters, **anchored)
    axes.set_yticks(ticks, names[::every], fontsize=letters)
    right, total = int(confusion.trace()), int(confusion.sum())
    title = f"test split: {right} of {total} right"
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title("\n".join([title, *frequent]), fontsize=TITLE_SIZE if frequent else None)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    save(figure, file)


def _most_frequent(confusion: npt.NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """`most often: cat read as dog (12)`, a line each."""
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_FREQUENT]
    cells = [divmod(int(place), len(names)) for place in order]
    lines = [
        f"{names[row]} read as {names[column]}: {wrong[row, column]}"
        for row, column in cells
        if wrong[row, column]
    ]
    return [f"most often {line}" if place == 0 else line for place, line in enumerate(lines)]


def draw_worst_mistakes(
    answers: Answers, images: Bytes, class_names: Sequence[str], file: Path
) -> None:
    """The wrongly read test images with the largest loss, each with truth and prediction."""
    wrong = np.flatnonzero(~answers.right)
    worst = wrong[np.argsort(-answers.losses[wrong], kind="stable")][:NUM_SHOWN]
    names = list(class_names)
    captions = [(names[answers.labels[i]], f"read as {names[answers.predictions[i]]}") for i in worst]
    shown = f"the {len(worst)} worst of {len(wrong)}" if len(wrong) else "no"
    title = f"{shown} mistakes on {len(answers.labels)} test images"
    save(_sheet(images[worst], captions, title), file)


def draw_disagreements(
    first: Answers,
    second: Answers,
    images: Bytes,
    class_names: Sequence[str],
    *,
    names: tuple[str, str],
    file: Path,
) -> int:
    """The test images that two models read differently, the most confident errors first.

    Images that only the first has right, only the second, and neither share the places as evenly as
    there are enough of them. Returns how many images are read differently in all.
    """
    differ = first.predictions != second.predictions
    kinds = [differ & first.right, differ & second.right, differ & ~first.right & ~second.right]
    surprise = -np.maximum(first.losses, second.losses)
    ordered = [
        indices[np.argsort(surprise[indices], kind="stable")] for indices in map(np.flatnonzero, kinds)
    ]
    chosen = _shares(ordered, NUM_SHOWN)
    classes = list(class_names)
    captions = [
        (
            f"{classes[first.labels[i]]}:",
            f"A {classes[first.predictions[i]]},",
            f"B {classes[second.predictions[i]]}",
        )
        for i in chosen
    ]
    counts = [len(indices) for indices in ordered]
    title = (
        f"{len(chosen)} of {sum(counts)} test images that A and B read differently: only A right "
        f"{counts[0]}, only B {counts[1]}, neither {counts[2]}\n"
        f"A: {names[0]}\nB: {names[1]}\nbelow each: the truth, what A read, what B read"
    )
    save(_sheet(images[chosen], captions, title), file)
    return sum(counts)


def _shares(ordered: Sequence[npt.NDArray[np.int64]], places: int) -> npt.NDArray[np.int64]:
    """The first of each kind, in turn until the places are filled; the result is sorted by kind."""
    taken = [0] * len(ordered)
    while places and any(n < len(kind) for n, kind in zip(taken, ordered, strict=True)):
        for number, kind in enumerate(ordered):
            if places and taken[number] < len(kind):
                taken[number] += 1
                places -= 1
    return np.concatenate([kind[:n] for n, kind in zip(taken, ordered, strict=True)])


def _sheet(images: Bytes, captions: Sequence[tuple[str, ...]], title: str) -> Figure:
    """Images (N, H, W) or (N, H, W, 3) in rows, each with its caption below, of one line or of several.

    What is ink on black is drawn dark on white.
    """
    columns = min(max(len(images), 8), COLUMNS)
    letters = int(0.9 * columns * 72 / (0.6 * TITLE_SIZE))
    title = "\n".join(row for line in title.splitlines() for row in textwrap.wrap(line, letters))
    lines = title.count("\n") + 1
    rows = max(-(-len(images) // columns), 1)
    written = [" ".join(parts) for parts in captions]
    if max(map(len, written), default=0) > MAX_CAPTION:
        written = ["\n".join(_shortened(part, MAX_CAPTION) for part in parts) for parts in captions]
    height, width, *colours = images.shape[1:]
    side = max(height, width)
    below = side * (14 + 9 * max((text.count("\n") for text in written), default=0)) // 28
    cell = side + below, side + side // 2
    if np.median(_borders(images)) == 0 and not colours:
        images = 255 - images
    sheet = np.full((rows * cell[0], columns * cell[1], *colours), 255, dtype=np.uint8)
    size = 0.9 * columns, 0.9 * rows * cell[0] / cell[1] + 0.1 + 0.25 * lines
    figure = _figure(*size, left=0.05, right=0.05, bottom=0.05, top=0.05 + 0.25 * lines)
    axes = figure.subplots()
    axes.set_axis_off()
    for place, (image, caption) in enumerate(zip(images, written, strict=True)):
        bottom = (place // columns) * cell[0] + side
        left = (place % columns) * cell[1] + side // 4 + (side - width) // 2
        sheet[bottom - height : bottom, left : left + width] = image
        middle = left + width / 2
        axes.text(middle, bottom + side / 14, caption, ha="center", va="top", fontsize=7)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=TITLE_SIZE)
    return figure


def _borders(images: Bytes) -> Bytes:
    """The outermost pixels of all images, in one row; a black one of none."""
    sides = (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1])
    return np.concatenate([np.zeros(1, dtype=np.uint8), *(part.ravel() for part in sides)])


def _shortened(name: str, length: int) -> str:
    """Names of classes differ at the end as often as at the beginning."""
    end = length // 3
    return name if len(name) <= length else f"{name[: length - end - 1]}…{name[-end:]}"


def _figure(
    width: float,
    height: float,
    *,
    left: float,
    right: float,
    bottom: float,
    top: float,
    wspace: float | None = None,
) -> Figure:
    """A figure with its size and margins in inches; wspace: between axes, in widths of one."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=wspace,
    )
    return figure


def save(figure: Figure, file: Path, *, dpi: int = 110) -> None:
    """In the format of the file's ending, one of FORMS."""
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name with two dollar signs is no formula
    figure.savefig(file, dpi=dpi, **FORMS[file.suffix])
