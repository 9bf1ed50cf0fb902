"""The one schema: every knob with its type, range and meaning.

Knows neither torch nor Hydra nor MLflow. Values live in conf/; there are no defaults here, so that a
resolved configuration is always complete. A configuration is data, never code: plain numbers and text
under known names.
"""

import dataclasses
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AllowInfNan, ConfigDict, Field, GetPydanticSchema, Strict
from pydantic.dataclasses import dataclass
from pydantic_core.core_schema import any_schema

from digitlab.text import yaml_text

CLOSED = ConfigDict(extra="forbid")

# Images in the training split. `digits` has no official split; ours is fixed in embedded_digits.py.
NUM_TRAIN = {"digits": 1437, "mnist": 60_000, "fashion_mnist": 60_000, "kmnist": 60_000}

Integer = Annotated[int, Strict()]  # neither 5.0 nor true nor "5"
Number = Annotated[float, Strict(), AllowInfNan(False)]
Switch = Annotated[bool, Strict()]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Count = Annotated[Integer, Field(ge=1, le=1_000_000)]
Width = Annotated[Integer, Field(ge=1, le=4096)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]
PositiveFloat = Annotated[Number, Field(gt=0)]
NonNegativeFloat = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]  # [0, 1): dropout, momentum, averaging
PositiveFraction = Annotated[Number, Field(gt=0, le=1)]
Metric = Literal["validation/loss", "validation/accuracy"]


def _about(text: str) -> Any:
    return Field(description=text)


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class OwnConfig:
    """Of a component that a user brings, which adds its knobs (see components/)."""

    name: str


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class OwnOptimizerConfig(OwnConfig):
    learning_rate: Annotated[PositiveFloat, _about("step size before scheduling")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class LogisticRegressionConfig:
    name: Literal["logistic_regression"]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class CNNConfig:
    name: Literal["cnn"]
    channels_1: Annotated[Width, _about("output channels of the first convolution")]
    channels_2: Annotated[Width, _about("output channels of the second convolution")]
    hidden_units: Annotated[Width, _about("width of the hidden fully connected layer")]
    conv_dropout: Annotated[Fraction, _about("probability of dropping a whole channel (Dropout2d)")]
    hidden_dropout: Annotated[Fraction, _about("probability of dropping a hidden unit")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class SGDConfig:
    name: Literal["sgd"]
    learning_rate: Annotated[PositiveFloat, _about("step size before scheduling")]
    momentum: Annotated[Fraction, _about("share of the previous step that is kept")]
    nesterov: Annotated[Switch, _about("Nesterov's form of momentum")]
    weight_decay: Annotated[NonNegativeFloat, _about("L2 penalty added to the gradient")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class AdamConfig:
    """Both Adam (L2 penalty in the gradient) and AdamW (decoupled weight decay)."""

    name: Literal["adam", "adamw"]
    learning_rate: Annotated[PositiveFloat, _about("step size before scheduling")]
    beta_1: Annotated[Fraction, _about("averaging of the gradient")]
    beta_2: Annotated[Fraction, _about("averaging of the squared gradient")]
    epsilon: Annotated[PositiveFloat, _about("added to the denominator")]
    weight_decay: Annotated[NonNegativeFloat, _about("L2 penalty (adam) or decoupled decay (adamw)")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class RMSpropConfig:
    name: Literal["rmsprop"]
    learning_rate: Annotated[PositiveFloat, _about("step size before scheduling")]
    alpha: Annotated[Fraction, _about("averaging of the squared gradient")]
    momentum: Annotated[Fraction, _about("share of the previous step that is kept")]
    epsilon: Annotated[PositiveFloat, _about("added to the denominator")]
    weight_decay: Annotated[NonNegativeFloat, _about("L2 penalty added to the gradient")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class AdagradConfig:
    name: Literal["adagrad"]
    learning_rate: Annotated[PositiveFloat, _about("step size before scheduling")]
    initial_accumulator: Annotated[
        NonNegativeFloat, _about("where the sums of squared gradients begin")
    ]
    epsilon: Annotated[PositiveFloat, _about("added to the denominator")]
    weight_decay: Annotated[NonNegativeFloat, _about("L2 penalty added to the gradient")]


Warmup = Annotated[Fraction, _about("share of all steps in which the learning rate rises to its peak")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class ConstantConfig:
    name: Literal["constant"]
    warmup_fraction: Warmup


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class CosineConfig:
    name: Literal["cosine"]
    warmup_fraction: Warmup
    final_fraction: Annotated[
        Number, Field(ge=0, le=1), _about("last learning rate as a share of the peak")
    ]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class StepConfig:
    name: Literal["step"]
    warmup_fraction: Warmup
    every_epochs: Annotated[Count, _about("epochs between two drops")]
    factor: Annotated[PositiveFraction, _about("what each drop multiplies the learning rate with")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class OneCycleConfig:
    name: Literal["one_cycle"]
    warmup_fraction: Warmup
    initial_divisor: Annotated[Number, Field(ge=1), _about("peak / first learning rate")]
    final_divisor: Annotated[Number, Field(ge=1), _about("first / last learning rate")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class InverseSqrtConfig:
    name: Literal["inverse_sqrt"]
    warmup_fraction: Warmup
    timescale_epochs: Annotated[
        PositiveFloat, _about("epochs after the warmup until the learning rate is 0.71 of its peak")
    ]


SplitSeed = Annotated[Seed, _about("decides which training images are used for validation")]
OrderSeed = Annotated[Seed | None, _about("decides the order of the training images; null: seed does")]
Mean = Annotated[Number, Field(ge=0, le=1), _about("subtracted from pixels in [0, 1] before training")]
Std = Annotated[PositiveFraction, _about("pixels in [0, 1] are divided by it")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class BuiltInDataConfig:
    name: Literal["digits", "mnist", "fashion_mnist", "kmnist"]
    root: Annotated[
        Text | None, _about("folder of the data sets; null: $DIGITLAB_DATA or the user's cache")
    ]
    validation_size: Annotated[
        Integer, Field(ge=0, lt=60_000), _about("images taken from the training split for validation")
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
        _about("images taken from train for validation; null: a tenth of them, at most 5,000"),
    ] = None
    split_seed: SplitSeed = 0
    order_seed: OrderSeed = None
    mean: Mean = 0.5
    std: Std = 0.5


DataPath = Annotated[
    Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")] | None,
    _about("where the data lie, from the project's folder; it must be given"),
]
Side = Annotated[
    Annotated[Integer, Field(ge=8, le=256)] | None,
    _about("every picture is brought to side x side pixels; null: they have one shape, and keep it"),
]
Length = Annotated[Integer, Field(ge=8, le=256)]
TestFraction = Annotated[
    Number, Field(gt=0, lt=1), _about("share of each class that is the test split, if there is none")
]
TestSeed = Annotated[Seed, _about("decides which images are that test split")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class FolderDataConfig(OwnDataConfig):
    name: Literal["folder"]
    path: DataPath
    side: Side
    colour: Annotated[
        Literal["auto", "grey", "rgb"],
        _about("channels of an image; auto: rgb if any picture has a colour"),
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
        _about(
            "column of the labels, by name or by position from 0 (-1: the last); null: label, "
            "class, target or y, or else the first"
        ),
    ]
    height: Annotated[Length | None, _about("rows of pixels of an image; null: images are square")]
    width: Annotated[Length | None, _about("pixels in a row of an image; null: images are square")]
    side: Side
    test_fraction: TestFraction
    test_seed: TestSeed


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class TrackingConfig:
    uri: Annotated[
        Annotated[str, Field(min_length=1, max_length=1000)] | None,
        _about("MLflow tracking URI; null: $MLFLOW_TRACKING_URI or mlruns/mlflow.db of the project"),
    ]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class EarlyStoppingConfig:
    patience: Annotated[
        Integer,
        Field(ge=0, le=1_000_000),
        _about("stop after this many epochs without improvement; 0: never"),
    ]
    metric: Annotated[Metric, _about("validation metric that has to improve")]
    min_delta: Annotated[NonNegativeFloat, _about("smallest change that counts as an improvement")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class CheckpointConfig:
    weights: Annotated[Literal["last", "best"], _about("which epoch's weights are tested and saved")]
    metric: Annotated[Metric, _about("validation metric that decides which epoch is best")]
    every_seconds: Annotated[
        NonNegativeFloat,
        _about("least time between two checkpoints, at any step; 0: at the end of every epoch"),
    ]
    every_steps: Annotated[
        Annotated[Integer, Field(ge=1, le=1_000_000_000)] | None,
        _about("also after every so many steps; null: by time alone"),
    ]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class RecordConfig:
    plots: Annotated[
        Literal["auto", "always", "never"],
        _about("draw each run's pictures; auto: of a sweep's runs only the best, at its end"),
    ]
    mlflow_model: Annotated[
        Switch, _about("also log the model in MLflow's format, to load or serve it")
    ]


ModelConfig = LogisticRegressionConfig | CNNConfig | OwnConfig
OptimizerConfig = SGDConfig | AdamConfig | RMSpropConfig | AdagradConfig | OwnOptimizerConfig
SchedulerConfig = (
    ConstantConfig | CosineConfig | StepConfig | OneCycleConfig | InverseSqrtConfig | OwnConfig
)
PlacedDataConfig = FolderDataConfig | NpzDataConfig | CsvDataConfig | IdxDataConfig  # files of a user
FORMS = ("folder", "npz", "csv", "idx")  # their names
DataConfig = BuiltInDataConfig | PlacedDataConfig | OwnDataConfig
# digitlab's own choices of the groups whose knobs depend on what is chosen.
BUILT_IN: dict[str, dict[str, type]] = {
    group: {
        name: choice
        for choice in get_args(choices)
        if (hint := get_type_hints(choice)["name"]) is not str
        for name in get_args(hint)
    }
    for group, choices in (
        ("model", ModelConfig),
        ("optimizer", OptimizerConfig),
        ("scheduler", SchedulerConfig),
        ("data", DataConfig),
    )
}
# Each choice is checked by its own class, which a user may add to: see checking.py.
_Chosen = GetPydanticSchema(lambda _source, _handler: any_schema())


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class Config:
    """A whole checked configuration, printed as YAML: `config.optimizer.learning_rate`."""

    model: Annotated[ModelConfig, _Chosen]
    optimizer: Annotated[OptimizerConfig, _Chosen]
    scheduler: Annotated[SchedulerConfig, _Chosen]
    data: Annotated[DataConfig, _Chosen]
    tracking: TrackingConfig
    study: Annotated[Text, _about("the question this run answers; an MLflow experiment")]
    run_name: Annotated[Text | None, _about("null: made of the model, the optimizer and the seed")]
    seed: Annotated[Seed, _about("initial weights, order of images and dropout derive from it")]
    batch_size: Annotated[Count, _about("images in one optimizer step")]
    epochs: Annotated[Count, _about("passes over the training images")]
    device: Annotated[
        Literal["auto", "cpu", "cuda"], _about("where to train; auto: a GPU if there is one")
    ]
    threads: Annotated[
        Integer, Field(ge=1, le=1024), _about("CPU threads; another number gives other rounding")
    ]
    arithmetic: Annotated[
        Literal["native", "portable"],
        _about("portable: the same bits on every x86-64 processor, with one thread; slower"),
    ]
    early_stopping: EarlyStoppingConfig
    checkpoint: CheckpointConfig
    record: RecordConfig

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, as a YAML file of the configuration holds them."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return yaml_text.dump(self.to_dict())

    def _repr_pretty_(self, printer: Any, _is_cycle: bool) -> None:
        printer.text(str(self))

    def _repr_markdown_(self) -> str:
        return f"```yaml\n{self}```"


def contradictions(config: Config) -> list[str]:
    """What is wrong with knobs that are each in range."""
    problems = []
    data = config.data
    if isinstance(data, BuiltInDataConfig):
        problems += of_sizes(config, NUM_TRAIN[data.name])
    elif isinstance(data, PlacedDataConfig) and data.path is None:
        problems.append(
            f"data.path is missing: data={data.name} needs data.path=PATH, where the data lie"
        )
    needs_validation = {
        "early_stopping.patience": config.early_stopping.patience > 0,
        "checkpoint.weights=best": config.checkpoint.weights == "best",
    }
    problems += [
        f"{knob} needs a validation split: set data.validation_size to more than 0"
        for knob, needed in needs_validation.items()
        if needed and data.validation_size == 0
    ]
    if config.arithmetic == "portable" and config.threads != 1:
        problems.append(f"arithmetic=portable needs threads=1, got {config.threads}")
    if config.arithmetic == "portable" and config.device == "cuda":
        problems.append("arithmetic=portable needs device=cpu (or auto), got cuda")
    optimizer = config.optimizer
    if isinstance(optimizer, SGDConfig) and optimizer.nesterov and optimizer.momentum == 0:
        problems.append("optimizer.nesterov needs optimizer.momentum in (0, 1), got 0.0")
    return problems


def of_sizes(config: Config, size: int) -> list[str]:
    """What is wrong with knobs that count images. size: images of train and validation together."""
    validation = num_held_out(config.data.validation_size, size)
    if validation >= size:
        return [
            f"data.validation_size must be less than the {size} training images of "
            f"{config.data.name}, got {validation}"
        ]
    if config.batch_size > size - validation:
        return [
            f"batch_size must be at most the {size - validation} training images of "
            f"{config.data.name}, got {config.batch_size}"
        ]
    return []


def num_held_out(validation_size: int | None, size: int) -> int:
    """Images for validation, of `size` training images."""
    return min(size // 10, 5000) if validation_size is None else validation_size
