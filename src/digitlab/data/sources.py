"""From the knobs of `data` to images and labels: built in, a user's in some form, or a component's.

The one place that knows all loaders. Knows no torch.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from digitlab.config import project
from digitlab.config.components import lookup
from digitlab.config.data_schema import (
    NUM_TRAIN,
    BuiltInDataConfig,
    CsvDataConfig,
    DataConfig,
    FolderDataConfig,
    IdxDataConfig,
    NpzDataConfig,
    OwnDataConfig,
)
from digitlab.data import cache, files
from digitlab.data.checks import problems_of, raise_all, warnings_of
from digitlab.data.digests import digests_of
from digitlab.data.image_data import ImageData
from digitlab.data.image_files import brought_to
from digitlab.data.loaders import csv_files, folder, idx_files, npz
from digitlab.errors import DataError, DigitlabError

# Knobs of every data set, which no loader is given.
SHARED = frozenset(field.name for field in dataclasses.fields(OwnDataConfig))
LOADERS: dict[type, Callable[..., ImageData]] = {
    FolderDataConfig: folder.load,
    NpzDataConfig: npz.load,
    CsvDataConfig: csv_files.load,
    IdxDataConfig: idx_files.load,
}


def read(config: DataConfig, root: Path | None = None) -> tuple[ImageData, dict[str, str]]:
    """The data set, whole and without a reason to be refused, and its digests (see digests.py).

    root: of a built-in set the folder that counts instead of its knob.

    Raises:
        DataError: what is missing, damaged or wrong: everything at once, and what to do.
    """
    if isinstance(config, BuiltInDataConfig):
        return _built_in(config, root or project.data_root(config.root))
    where, data = _own(config)
    raise_all(where, problems_of(data))
    return data, digests_of(data)


def tell_warnings(config: DataConfig, data: ImageData, say: Callable[[str], None]) -> None:
    """What a user should know of data of their own; ours are known."""
    if not isinstance(config, BuiltInDataConfig):
        for warning in warnings_of(data):
            say(f"data={config.name}: {warning}")


def known_digests(config: DataConfig) -> dict[str, str] | None:
    """The digests that `read` would give, without reading where there is but one right answer; None
    if a set that is downloaded is not there yet. Raises DataError as `read` does."""
    if isinstance(config, BuiltInDataConfig):
        return files.known_digests(config.name, project.data_root(config.root))
    return read(config)[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """num_images: of train and validation together. image_shape: channels, height, width."""

    num_images: int
    image_shape: tuple[int, int, int]
    num_classes: int


def sizes_of(config: DataConfig) -> Sizes:
    """Of a built-in set without reading it. Raises DataError as `read` does for a user's own data."""
    if isinstance(config, BuiltInDataConfig):
        return Sizes(NUM_TRAIN[config.name], (1, files.SIDE, files.SIDE), files.NUM_CLASSES)
    data, _ = read(config)
    images, labels = data.train
    height, width, *colours = images.shape[1:]
    return Sizes(len(labels), (colours[0] if colours else 1, height, width), len(data.class_names))


def source_of(config: DataConfig) -> DataConfig:
    """The same for all configurations that read the same data, however they split and show it."""
    return dataclasses.replace(
        config, validation_size=0, split_seed=0, order_seed=None, mean=0.0, std=1.0
    )


def _built_in(config: BuiltInDataConfig, root: Path) -> tuple[ImageData, dict[str, str]]:
    arrays, digests = files.read_verified(config.name, root)
    return ImageData(arrays["train"], arrays["test"], files.class_names(config.name)), digests


def _own(config: Any) -> tuple[str, ImageData]:
    """And what messages call it."""
    knobs = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in SHARED
    }
    load = LOADERS.get(type(config))
    if load is None:
        return f"data={config.name}", _by_component(config)
    path = project.data_path(knobs.pop("path"))
    if load is not folder.load:
        load = partial(_resized, load, knobs.pop("side"))
    return str(path), cache.kept(
        path, dataclasses.asdict(source_of(config)), partial(load, path, **knobs)
    )


def _resized(load: Callable[..., ImageData], side: int | None, path: Path, **knobs: Any) -> ImageData:
    """Arrays have one shape; brought to side x side where that is given."""
    data = load(path, **knobs)
    if side is None or any(images.ndim not in (3, 4) for images, _ in (data.train, data.test)):
        return data
    train, test = (
        (
            np.stack([brought_to(one, (3 if images.ndim == 4 else 1, side, side)) for one in images]),
            labels,
        )
        for images, labels in (data.train, data.test)
    )
    return dataclasses.replace(data, train=train, test=test)


def _by_component(config: OwnDataConfig) -> ImageData:
    try:
        data = lookup.build("data", config)
    except (DigitlabError, OSError, MemoryError):
        raise
    except Exception as error:  # a user's own code
        raise DataError(f"data={config.name}: {type(error).__name__}: {error}") from error
    if not isinstance(data, ImageData):
        raise DataError(f"data={config.name} must give a digitlab.ImageData, got {type(data).__name__}")
    return data
