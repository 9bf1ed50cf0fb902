"""Data sets as uint8 tensors in memory, split for training, validation and test.

A batch is an index into them, normalised on the way. Knows nothing of models or training.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from digitlab.config.data_schema import DataConfig, num_held_out
from digitlab.data.files import NUM_CLASSES, SIDE
from digitlab.data.sources import read, tell_warnings
from digitlab.randomness import derive_seed

__all__ = ["NUM_CLASSES", "SIDE", "Dataset", "Split", "load", "to_tensor"]


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """Images and labels on one device, and the normalisation that a model sees them through.

    images: uint8 (N, H, W) in grey or (N, 3, H, W) in colour, 0 to 255. labels: int64 (N,), from 0.
    mean and std: of pixels in [0, 1].
    """

    images: Tensor
    labels: Tensor
    mean: float
    std: float

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        *colours, height, width = self.images.shape[1:]
        return (*colours, height, width) if colours else (1, height, width)  # type: ignore[return-value]

    def normalised(self, index: Tensor | slice) -> Tensor:
        """The chosen images as float32 (B, C, H, W)."""
        images = self.images[index] if isinstance(index, slice) else self.images.index_select(0, index)
        # (x / 255 - mean) / std in one pass over the floats: 6 us a batch less than two.
        black = _normalised_black(self.mean, self.std)
        pixels = torch.add(black, images.float(), alpha=1 / (255 * self.std))
        return pixels.unsqueeze(1) if pixels.dim() == 3 else pixels

    def to(self, device: torch.device) -> "Split":
        return dataclasses.replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint splits; `test` is the official one, whole. `validation` is None when it is empty.

    digests: SHA-256 of the decoded images and labels of train and test, and of the indices of
    validation in train.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    digests: dict[str, str]
    class_names: list[str]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.train.image_shape


def load(
    config: DataConfig, root: Path | None = None, *, say: Callable[[str], None] | None = None
) -> Dataset:
    """Read, check and split a data set; downloads a built-in one if it is nowhere.

    root: see sources.read. say: told what a user should know of the data, which takes a while to find.

    Raises:
        DataError: what is missing, damaged or wrong: everything at once, and what to do.
    """
    data, digests = read(config, root)
    if say:
        tell_warnings(config, data, say)
    train, test = (
        Split(to_tensor(images), torch.from_numpy(labels.astype(np.int64)), config.mean, config.std)
        for images, labels in (data.train, data.test)
    )
    num_validation = num_held_out(config.validation_size, len(train))
    order = torch.randperm(
        len(train),
        generator=torch.Generator().manual_seed(derive_seed(config.split_seed, "validation split")),
    )
    held_out, kept = order[:num_validation], order[num_validation:].sort().values
    digests["validation_indices"] = hashlib.sha256(held_out.numpy().tobytes()).hexdigest()
    return Dataset(
        name=config.name,
        train=_subset(train, kept) if len(held_out) else train,
        validation=_subset(train, held_out) if len(held_out) else None,
        test=test,
        digests=digests,
        class_names=data.class_names,
    )


@functools.cache
def _normalised_black(mean: float, std: float) -> Tensor:
    """As a tensor without dimensions, which takes 5 us to make."""
    return torch.tensor(-mean / std)


def to_tensor(images: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W), or (N, H, W, 3) with the channels moved to the front."""
    tensor = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    return tensor if tensor.dim() == 3 else tensor.permute(0, 3, 1, 2).contiguous()


def _subset(split: Split, index: Tensor) -> Split:
    return dataclasses.replace(split, images=split.images[index], labels=split.labels[index])
