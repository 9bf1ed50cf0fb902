"""The knobs of `data`: of sets that digitlab knows, of files in some form, or of a user's own loader.

Part of the schema. Knows neither torch nor files.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from digitlab.config.kinds import (
    CLOSED,
    Integer,
    Number,
    OwnConfig,
    PositiveFraction,
    Seed,
    Text,
    about,
)

# Images in the training split. `digits` has no official split; ours is fixed in embedded_digits.py.
NUM_TRAIN = {"digits": 1437, "mnist": 60_000, "fashion_mnist": 60_000, "kmnist": 60_000}

SplitSeed = Annotated[Seed, about("decides which training images are used for validation")]
OrderSeed = Annotated[Seed | None, about("decides the order of the training images; null: seed does")]
Mean = Annotated[Number, Field(ge=0, le=1), about("subtracted from pixels in [0, 1] before training")]
Std = Annotated[PositiveFraction, about("pixels in [0, 1] are divided by it")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class BuiltInDataConfig:
    name: Literal["digits", "mnist", "fashion_mnist", "kmnist"]
    root: Annotated[
        Text | None, about("folder of the data sets; null: $DIGITLAB_DATA or the user's cache")
    ]
    validation_size: Annotated[
        Integer, Field(ge=0, lt=60_000), about("images taken from the training split for validation")
    ]
    split_seed: SplitSeed
    order_seed: OrderSeed
    mean: Mean
    std: Std


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class OwnDataConfig(OwnConfig):
    """Of data that a user brings: what is done with them, however they are read.

    A user's own loader adds its knobs, and has no file in conf/ that would hold these values.
    """

    validation_size: Annotated[
        Annotated[Integer, Field(ge=0, lt=100_000_000)] | None,
        about("images taken from train for validation; null: a tenth of them, at most 5,000"),
    ] = None
    split_seed: SplitSeed = 0
    order_seed: OrderSeed = None
    mean: Mean = 0.5
    std: Std = 0.5


DataPath = Annotated[
    Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")] | None,
    about("where the data lie, from the project's folder; it must be given"),
]
Side = Annotated[
    Annotated[Integer, Field(ge=8, le=256)] | None,
    about("every picture is brought to side x side pixels; null: they have one shape, and keep it"),
]
Length = Annotated[Integer, Field(ge=8, le=256)]
TestFraction = Annotated[
    Number, Field(gt=0, lt=1), about("share of each class that is the test split, if there is none")
]
TestSeed = Annotated[Seed, about("decides which images are that test split")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class FolderDataConfig(OwnDataConfig):
    name: Literal["folder"]
    path: DataPath
    side: Side
    colour: Annotated[
        Literal["auto", "grey", "rgb"],
        about("channels of an image; auto: rgb if any picture has a colour"),
    ]
    test_fraction: TestFraction
    test_seed: TestSeed


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class NpzDataConfig(OwnDataConfig):
    name: Literal["npz"]
    path: DataPath
    side: Side
    test_fraction: TestFraction
    test_seed: TestSeed


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class IdxDataConfig(OwnDataConfig):
    name: Literal["idx"]
    path: DataPath
    side: Side
    test_fraction: TestFraction
    test_seed: TestSeed


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class CsvDataConfig(OwnDataConfig):
    name: Literal["csv"]
    path: DataPath
    label_column: Annotated[
        Text | None,
        about(
            "column of the labels, by name or by position from 0 (-1: the last); null: label, "
            "class, target or y, or else the first"
        ),
    ]
    height: Annotated[Length | None, about("rows of pixels of an image; null: images are square")]
    width: Annotated[Length | None, about("pixels in a row of an image; null: images are square")]
    side: Side
    test_fraction: TestFraction
    test_seed: TestSeed


PlacedDataConfig = FolderDataConfig | NpzDataConfig | CsvDataConfig | IdxDataConfig  # files of a user
FORMS = ("folder", "npz", "csv", "idx")  # their names
DataConfig = BuiltInDataConfig | PlacedDataConfig | OwnDataConfig


def num_held_out(validation_size: int | None, size: int) -> int:
    """Images for validation, of `size` training images."""
    return min(size // 10, 5000) if validation_size is None else validation_size
