"""A picture as a model takes it: handwritten digits and their like as their makers did, all else as the
loader of the model's own data brings a picture to their shape.

Knows no files and no answers.
"""

from digitlab.config.data_schema import NUM_TRAIN
from digitlab.data.image_files import Bytes, Colour, brought_to
from digitlab.inference.normalising import NoDigit, Normalised, as_it_is, normalise
from digitlab.models.saved import Classifier


def colour_of(classifier: Classifier) -> Colour:
    """How pictures are to be decoded: as the data were that the model was trained on."""
    if is_ink(classifier):
        return "grey"
    given: Colour = "rgb" if classifier.signature.is_colour else "grey"
    return getattr(classifier.config.data, "colour", given)


def is_ink(classifier: Classifier) -> bool:
    """Whether the model was trained on a built-in set, whose images are white ink on black."""
    return classifier.config.data.name in NUM_TRAIN


def prepared(picture: Bytes, classifier: Classifier, *, as_given: bool = False) -> Normalised:
    """as_given: it has the model's shape already, and is taken pixel by pixel.

    Raises:
        NoDigit: there is nothing to read on it, or it has another shape.
    """
    if is_ink(classifier):
        name = classifier.config.data.name
        return as_it_is(picture) if as_given else normalise(picture, name)
    shape = classifier.signature.image_shape
    _, height, width = shape
    if as_given and picture.shape[:2] != (height, width):
        raise NoDigit(
            f"with --no-normalise a picture must be {width} x {height} pixels; "
            f"it is {picture.shape[1]} x {picture.shape[0]}"
        )
    image = brought_to(picture, shape)
    is_same = picture.shape[:2] == (height, width)
    told = "as it is" if is_same else f"brought to {width} x {height} pixels"
    return Normalised(image=image, told_from=told, left_out=(), doubts=())
