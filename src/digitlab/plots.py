"""The pictures of one run, as PNG files. Draws with matplotlib's Figure, without pyplot's state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from digitlab.data import SIDE, Dataset
from digitlab.evaluation import Evaluation, Integers
from digitlab.training import EpochReport

# Okabe and Ito's colours, told apart with any colour vision.
TRAIN_COLOUR, VALIDATION_COLOUR = "#0072B2", "#D55E00"
NUM_MISTAKES = 40
COLUMNS = 10


def draw_learning_curves(history: Sequence[EpochReport], file: Path) -> None:
    """Loss (nats) and accuracy (%) of training and validation by epoch."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    epochs = [report.epoch for report in history]
    curves = [("training, while it learns", TRAIN_COLOUR, "o", [r.train for r in history])]
    validation = [r.validation for r in history if r.validation]
    if validation:
        curves.append(("validation", VALIDATION_COLOUR, "s", validation))
    for label, colour, marker, scores in curves:
        style = {"label": label, "color": colour, "marker": marker, "markersize": 3.5}
        loss_axes.plot(epochs, [s.loss for s in scores], **style)
        accuracy_axes.plot(epochs, [100 * s.accuracy for s in scores], **style)
    loss_axes.set(xlabel="epoch", ylabel="cross-entropy loss (nats)", ylim=(0, None))
    accuracy_axes.set(xlabel="epoch", ylabel="accuracy (%)")
    for axes in (loss_axes, accuracy_axes):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    _save(figure, file)


def draw_confusion_matrix(confusion: Integers, class_names: Sequence[str], file: Path) -> None:
    """Counts in every cell; the colour shows the share of the true class."""
    figure = Figure(figsize=(6.2, 5.6), layout="constrained")
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.35, vmin=0, vmax=1))
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(class_names))
    rotation = 45 if max(map(len, class_names)) > 2 else 0
    axes.set_xticks(ticks, class_names, rotation=rotation)
    axes.set_yticks(ticks, class_names)
    right, total = int(confusion.trace()), int(confusion.sum())
    axes.set(xlabel="predicted", ylabel="true", title=f"test split: {right} of {total} right")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    _save(figure, file)


def draw_worst_mistakes(dataset: Dataset, evaluation: Evaluation, file: Path) -> None:
    """The wrongly read test images with the largest loss, each with truth and prediction."""
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    worst = wrong[np.argsort(-evaluation.losses[wrong], kind="stable")][:NUM_MISTAKES]
    columns = min(max(len(worst), 5), COLUMNS)
    rows = max(-(-len(worst) // columns), 1)
    cell = SIDE + 14
    sheet = np.full((rows * cell, columns * cell), 255, dtype=np.uint8)
    figure = Figure(figsize=(0.9 * columns, 0.9 * rows + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    names = dataset.class_names
    for place, image in enumerate(worst):
        top, left = (place // columns) * cell, (place % columns) * cell + 7
        sheet[top : top + SIDE, left : left + SIDE] = 255 - dataset.test.images[image].cpu().numpy()
        truth, predicted = names[evaluation.labels[image]], names[evaluation.predictions[image]]
        caption = f"{truth} read as {predicted}"
        axes.text(left + SIDE / 2, top + SIDE + 5, caption, ha="center", va="center", fontsize=7)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    shown = f"the {len(worst)} worst of {len(wrong)}" if len(wrong) else "no"
    axes.set_title(f"{shown} mistakes on {len(evaluation.labels)} test images", fontsize=10)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(file, dpi=110, metadata={"Software": None})
