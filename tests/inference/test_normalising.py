"""Pictures of digits brought to the form of MNIST: against MNIST itself, and drawn in all ways."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from digitlab.data.files import read_verified
from digitlab.inference import normalising
from digitlab.inference.normalising import FORMS, NoDigit, Normalised, as_it_is
from tests.support.backgrounds import BACKGROUNDS, clean_scan, edge_to_edge, side_by_side


def normalise(grey: np.ndarray, name: str) -> np.ndarray:
    return normalising.normalise(grey, name).image


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """With paper around them, as MNIST's have."""
    images = read_verified("digits", tmp_path_factory.mktemp("data"))[0]["test"][0][:16]
    return np.pad(images, ((0, 0), (6, 6), (6, 6)))


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
    assert as_it_is(image).image is image
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
    correlations = [likeness(a, b) for a, b in zip(images, again, strict=True)]
    assert np.median(correlations) > 0.9


@pytest.mark.parametrize("name", sorted(BACKGROUNDS.keys() - {"clean_scan", "edge_to_edge"}))
def test_a_digit_is_told_from_what_it_lies_on(name: str, digits: np.ndarray) -> None:
    """The same sheet as without desk, frame, edge or lines; one that lies askew within 12 degrees."""
    found, left_out = [], []
    for seed, digit in enumerate(digits):
        scan, picture = (
            normalising.normalise(np.asarray(make(digit, np.random.default_rng(seed))), "mnist")
            for make in (clean_scan, BACKGROUNDS[name])
        )
        found.append(likeness(scan.image, picture.image))
        left_out += picture.left_out
    assert np.mean(np.array(found) > (0.75 if name == "dark_desk" else 0.9)) >= 0.9
    assert set(left_out) == {
        "dark_desk": {"what surrounds the sheet"},
        "black_frame": {"what surrounds the sheet"},
        "scanner_edge": {"what surrounds the sheet"},
        "squared_paper": {"lines from border to border"},
        "ruled_paper": {"lines from border to border"},
    }.get(name, set())


def test_ink_from_edge_to_edge_is_read_as_with_paper_around_it(digits: np.ndarray) -> None:
    """As a bitmap is that fills its box; dark and bright."""
    found = []
    for seed, digit in enumerate(digits):
        bitmap = np.asarray(edge_to_edge(digit, np.random.default_rng(seed)))
        paper = 255 if np.random.default_rng(seed).integers(2) == 0 else 0
        around = np.pad(bitmap, bitmap.shape[0] // 2, constant_values=paper)
        found.append(likeness(normalise(bitmap, "mnist"), normalise(around, "mnist")))
    assert np.mean(np.array(found) > 0.9) >= 0.85


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0)])
@pytest.mark.parametrize("width", [4, 8, 20])
def test_a_ring_that_touches_all_four_borders_is_a_ring(ink: int, paper: int, width: int) -> None:
    image = Image.new("L", (58, 58), paper)
    ImageDraw.Draw(image).ellipse((-3, -1, 60, 58), outline=ink, width=width)
    found = normalising.normalise(np.asarray(image), "mnist")
    assert found.image[14, 14] == 0
    assert found.image[14, 4:10].max() > 150
    assert found.doubts == ("the ink reaches the border of the picture",)


def test_no_picture_of_two_tones_raises_anything_but_a_refusal() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        shape = generator.integers(2, 12, 2)
        coarse = (generator.random(shape) < generator.uniform(0.1, 0.9)).astype(np.uint8) * 255
        try:
            found = normalise(np.kron(coarse, np.ones((5, 5), np.uint8)), "mnist")
        except NoDigit:
            continue
        assert found.shape == (28, 28)


def test_two_digits_are_told_and_one_is_not(digits: np.ndarray) -> None:
    def doubts(picture: Image.Image) -> tuple[str, ...]:
        found: Normalised = normalising.normalise(np.asarray(picture), "mnist")
        return found.doubts

    generator = np.random.default_rng(0)
    pairs = [doubts(side_by_side(*digits[n : n + 2], generator)) for n in range(0, 16, 2)]
    assert (
        np.mean([found == ("there are 2 shapes on it, and one digit is read",) for found in pairs])
        > 0.9
    )
    single = [doubts(clean_scan(digit, generator)) for digit in digits]
    assert sum(map(bool, single)) <= 1
