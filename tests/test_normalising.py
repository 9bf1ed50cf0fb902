"""Pictures of digits brought to the form of MNIST: against MNIST itself, and drawn in all ways."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from digitlab.datafiles import read_verified
from digitlab.inference.normalising import FORMS, NoDigit, as_it_is, normalise


def drawn(
    *, size: int = 400, width: int = 30, ink: int = 0, paper: int = 255, at: int = 60
) -> np.ndarray:
    """A 7, drawn with two strokes."""
    image = Image.new("L", (size, size), paper)
    pen = ImageDraw.Draw(image)
    points = [(at, at), (at + 150, at), (at + 60, at + 220)]
    pen.line(points, fill=ink, width=width, joint="curve")
    return np.asarray(image)


def extent(image: np.ndarray) -> list[int]:
    rows, columns = ndimage.find_objects((image > 0).astype(int))[0]
    return [rows.stop - rows.start, columns.stop - columns.start]


def test_the_ink_is_fitted_into_twenty_pixels_and_centred_by_its_mass() -> None:
    image = normalise(drawn(), "mnist")
    assert image.shape == (28, 28)
    assert max(extent(image)) in (19, 20, 21)  # antialiasing may add a faint rim
    assert ndimage.center_of_mass(image) == pytest.approx((14, 14), abs=0.6)
    assert image.max() > 240
    assert image[0].max() == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"ink": 255, "paper": 0},
        {"ink": 90, "paper": 160},
        {"at": 20},
        {"at": 160},
        {"size": 900},
    ],
)
def test_polarity_contrast_place_and_size_make_no_difference(changed: dict[str, int]) -> None:
    difference = normalise(drawn(**changed), "mnist").astype(int) - normalise(drawn(), "mnist")
    assert np.abs(difference).mean() < 5


def test_a_photo_reads_as_the_drawing() -> None:
    """Paper that darkens to one corner, noise and specks."""
    generator = np.random.default_rng(0)
    shade = np.linspace(250, 130, 400)[:, None] * np.linspace(1, 0.8, 400)[None]
    photo = np.where(drawn() < 128, 0.35 * shade, shade) + generator.normal(0, 6, (400, 400))
    photo[350:354, 30:34] = 20
    image = normalise(photo.clip(0, 255).astype(np.uint8), "mnist")
    assert np.abs(image.astype(int) - normalise(drawn(), "mnist")).mean() < 10


def test_a_thin_pen_leaves_strokes_as_wide_as_mnists() -> None:
    thin, thick = normalise(drawn(width=4), "mnist"), normalise(drawn(width=30), "mnist")
    assert thin.max() > 200
    assert 0.5 < thin.mean() / thick.mean() < 1.2


@pytest.mark.parametrize("value", [0, 255, 128])
def test_an_empty_picture_is_refused(value: int) -> None:
    with pytest.raises(NoDigit, match="nothing on it"):
        normalise(np.full((50, 60), value, np.uint8), "mnist")


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 2), (3, 900), (28, 28), (5, 7)])
@pytest.mark.parametrize("name", FORMS)
def test_pictures_of_any_shape_end_in_28x28_or_a_refusal(shape: tuple[int, int], name: str) -> None:
    generator = np.random.default_rng(1)
    for _ in range(5):
        try:
            image = normalise(generator.integers(0, 256, shape).astype(np.uint8), name)
        except NoDigit:
            continue
        assert (image.shape, image.dtype) == ((28, 28), np.uint8)


def test_as_it_is_takes_28x28_only() -> None:
    image = np.arange(784, dtype=np.uint16).reshape(28, 28).astype(np.uint8)
    assert as_it_is(image) is image
    with pytest.raises(NoDigit, match="must be 28 x 28 pixels, white ink on black; it is 30 x 28"):
        as_it_is(np.zeros((28, 30), np.uint8))


def test_mnists_own_images_stay_what_they_are(mnist: Path) -> None:
    """They are the form already: MNIST's authors made them so."""
    images = read_verified("mnist", mnist)[0]["test"][0][:300]
    changed = np.abs(np.stack([normalise(i, "mnist") for i in images]).astype(int) - images)
    assert changed.mean() < 1.0
    inverted = np.abs(np.stack([normalise(255 - i, "mnist") for i in images]).astype(int) - images)
    assert inverted.mean() < 1.0


def test_the_embedded_digits_stay_readable(tmp_path: Path) -> None:
    images = read_verified("digits", tmp_path)[0]["test"][0][:100]
    again = np.stack([normalise(255 - image, "digits") for image in images])
    correlations = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, again, strict=True)]
    assert np.median(correlations) > 0.9
