"""Pictures of runs on data of any number of classes and any shape: legible, and of the right pixels."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from digitlab.runs import plots
from digitlab.runs.artifacts import Answers


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, file: figures.append(figure))
    return figures


def answers(num_images: int, num_classes: int) -> Answers:
    draw = np.random.default_rng(0)
    labels, other = draw.integers(0, num_classes, (2, num_images))
    return Answers(
        labels, np.where(draw.random(num_images) < 0.8, labels, other), draw.random(num_images)
    )


@pytest.mark.parametrize("letters", [1, 9, 60])
@pytest.mark.parametrize("num_classes", [2, 10, 17, 40, 41, 100, 1000])
def test_names_beside_a_confusion_matrix_do_not_overlap(
    num_classes: int, letters: int, drawn: list[Figure]
) -> None:
    names = [f"{'n' * (letters - 1)}{c}" for c in range(num_classes)]
    plots.draw_confusion_matrix(answers(20 * num_classes, num_classes), names, Path("x.png"))
    (figure,) = drawn
    renderer, axes = FigureCanvasAgg(figure).get_renderer(), figure.axes[0]
    figure.draw(renderer)
    boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
    assert len(boxes) == len(range(0, num_classes, -(-num_classes // len(boxes))))
    assert len(boxes) >= min(num_classes, 40)
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) > 0, "no name is cut"
    across = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
    assert min(box.y0 for box in across) > 0, "no name is cut"
    counted = sum(int(text.get_text()) for text in axes.texts)
    assert counted == (20 * num_classes if num_classes <= 40 else 0)


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (32, 48, 3), (64, 9, 3), (256, 256)])
def test_mistakes_are_shown_as_they_are_whatever_their_shape(
    shape: tuple[int, ...], drawn: list[Figure]
) -> None:
    images = np.random.default_rng(1).integers(1, 256, (50, *shape), dtype=np.uint8)
    given = answers(50, 5)
    plots.draw_worst_mistakes(given, images, ["a", "b", "c", "d", "e"], Path("x.png"))
    sheet = np.asarray(drawn[0].axes[0].images[0].get_array())
    wrong = np.flatnonzero(~given.right)
    worst = images[wrong[np.argmax(given.losses[wrong])]]
    side, (height, width) = max(shape[:2]), shape[:2]
    left = side // 4 + (side - width) // 2
    np.testing.assert_array_equal(sheet[side - height : side, left : left + width], worst)


def test_ink_on_black_is_drawn_dark_on_white(drawn: list[Figure]) -> None:
    images = np.zeros((50, 28, 28), dtype=np.uint8)
    images[:, 5:20, 10:14] = 200
    plots.draw_worst_mistakes(answers(50, 5), images, list("abcde"), Path("x.png"))
    sheet = np.asarray(drawn[0].axes[0].images[0].get_array())
    assert (sheet[0, :28] == 255).all()
    assert sheet[10, 7 + 12] == 55
