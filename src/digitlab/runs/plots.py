"""The pictures of one run, and how every figure is saved: with matplotlib's Figure, not pyplot's state.

Margins are given, in inches: matplotlib's constrained layout draws everything twice to find them, and
a sweep of small networks would spend most of its time on it. Knows no torch.
"""

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

from digitlab.data.files import SIDE, Bytes
from digitlab.runs.artifacts import Answers
from digitlab.tracking.names import CONFUSION_PICTURE, CURVES_PICTURE, MISTAKES_PICTURE, VALIDATION_LOSS

# Okabe and Ito's colours, told apart with any colour vision.
TRAIN_COLOUR, VALIDATION_COLOUR = "#0072B2", "#D55E00"
NUM_SHOWN = 40
COLUMNS = 10
CAPTION_LETTERS = 16  # of a line: those that fit below an image
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
    """All PICTURES of a run into `folder`. images: those of the test split, (N, H, W) or
    (N, H, W, 3)."""
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
    """Counts in every cell; the colour shows the share of the true class."""
    confusion = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
    np.add.at(confusion, (answers.labels, answers.predictions), 1)
    longest = max(map(len, class_names))
    names_width = 0.08 * longest  # inches, about
    figure = _figure(6.2, 5.6, left=0.5 + names_width, right=0.05, bottom=0.5 + names_width, top=0.4)
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.35, vmin=0, vmax=1))
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(class_names))
    rotation = 45 if longest > 2 else 0
    axes.set_xticks(ticks, class_names, rotation=rotation)
    axes.set_yticks(ticks, class_names)
    right, total = int(confusion.trace()), int(confusion.sum())
    axes.set(xlabel="predicted", ylabel="true", title=f"test split: {right} of {total} right")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    save(figure, file)


def draw_worst_mistakes(
    answers: Answers, images: Bytes, class_names: Sequence[str], file: Path
) -> None:
    """The wrongly read test images with the largest loss, each with truth and prediction."""
    wrong = np.flatnonzero(~answers.right)
    worst = wrong[np.argsort(-answers.losses[wrong], kind="stable")][:NUM_SHOWN]
    names = np.asarray(class_names)
    captions = [f"{names[answers.labels[i]]} read as {names[answers.predictions[i]]}" for i in worst]
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
    classes = np.asarray(class_names)
    captions = [
        f"{classes[first.labels[i]]}: A {classes[first.predictions[i]]}, "
        f"B {classes[second.predictions[i]]}"
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


def _sheet(images: Bytes, captions: Sequence[str], title: str) -> Figure:
    """Images (N, H, W) or (N, H, W, 3) in rows, each with its caption below."""
    columns = min(max(len(images), 8), COLUMNS)
    letters = int(0.9 * columns * 72 / (0.6 * TITLE_SIZE))
    title = "\n".join(row for line in title.splitlines() for row in textwrap.wrap(line, letters))
    lines = title.count("\n") + 1
    rows = max(-(-len(images) // columns), 1)
    captions = ["\n".join(textwrap.wrap(caption, CAPTION_LETTERS)) for caption in captions]
    num_lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    side = max(images.shape[1:3])
    wide, high = side + side // 2, side + (side * (8 + 6 * num_lines)) // SIDE
    sheet = np.full((rows * high, columns * wide, *images.shape[3:]), 255, dtype=np.uint8)
    size = 0.9 * columns, 0.9 * rows * high / wide + 0.1 + 0.25 * lines
    figure = _figure(*size, left=0.05, right=0.05, bottom=0.05, top=0.05 + 0.25 * lines)
    axes = figure.subplots()
    axes.set_axis_off()
    if images.ndim == 3 and len(images) and images.mean() < 128:
        images = 255 - images  # bright ink: dark on white, as the paper
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        top, left = (place // columns) * high, (place % columns) * wide + side // 4
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
        middle, below = left + image.shape[1] / 2, top + side + side * (2 + 3 * num_lines) / SIDE
        axes.text(middle, below, caption, ha="center", va="center", fontsize=7)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=TITLE_SIZE)
    return figure


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
