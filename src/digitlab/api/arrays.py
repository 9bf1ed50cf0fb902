"""A data set as numpy arrays, split as a run splits it."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from digitlab.api.composing import compose
from digitlab.config.schema import Config
from digitlab.text.terminal import say

if TYPE_CHECKING:
    from digitlab.data.splits import Split

Labelled = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Data:
    """Three disjoint splits, each images and labels.

    Images are uint8 (N, H, W), or (N, H, W, 3) in colour, from 0 (black) to 255; labels are int64 (N,),
    indices of `class_names`. Of an empty validation split N is 0. `test` is for a last look: nothing is
    chosen by it.
    """

    name: str
    train: Labelled
    validation: Labelled
    test: Labelled
    class_names: list[str]

    def __repr__(self) -> str:
        sizes = [
            f"{len(getattr(self, split)[1]):,} {split}" for split in ("train", "validation", "test")
        ]
        shape = "x".join(map(str, self.train[0].shape[1:]))
        return (
            f"Data {self.name}: {', '.join(sizes)} images of {shape}, {len(self.class_names)} classes"
        )


def load_data(config: Config | Sequence[str] = ()) -> Data:
    """The data set of a configuration, checked and split as a run with it has it.

    Args:
        config: of a run or of `compose`, or overrides: `["data=mnist"]`.

    Raises:
        ConfigError: every mistake in the overrides. DataError: the data are missing or damaged.
    """
    from digitlab.data.splits import load

    data = (config if isinstance(config, Config) else compose(config)).data
    dataset = load(data, say=say)
    train = _arrays(dataset.train)
    empty = train[0][:0], train[1][:0]
    return Data(
        name=dataset.name,
        train=train,
        validation=_arrays(dataset.validation) if dataset.validation else empty,
        test=_arrays(dataset.test),
        class_names=list(dataset.class_names),
    )


def _arrays(split: "Split") -> Labelled:
    images = split.images.numpy()
    return (np.moveaxis(images, 1, -1) if images.ndim == 4 else images), split.labels.numpy()
