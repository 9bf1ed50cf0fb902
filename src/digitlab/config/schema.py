"""The one schema: every knob with its type, range and meaning; those of data in data_schema.py.

Knows neither torch nor Hydra nor MLflow. Values live in conf/; there are no defaults here, so that a
resolved configuration is always complete. A configuration is data, never code: plain numbers and text
under known names.
"""

import dataclasses
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import Field, GetPydanticSchema
from pydantic.dataclasses import dataclass
from pydantic_core.core_schema import any_schema

from digitlab.config.data_schema import (
    NUM_TRAIN,
    BuiltInDataConfig,
    DataConfig,
    PlacedDataConfig,
    num_held_out,
)
from digitlab.config.kinds import (
    CLOSED,
    Count,
    Fraction,
    Integer,
    Metric,
    NonNegativeFloat,
    Number,
    OwnConfig,
    PositiveFloat,
    PositiveFraction,
    Seed,
    Switch,
    Text,
    Width,
    about,
)
from digitlab.text import yaml_text


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class OwnOptimizerConfig(OwnConfig):
    learning_rate: Annotated[PositiveFloat, about("step size before scheduling")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class LogisticRegressionConfig:
    name: Literal["logistic_regression"]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class CNNConfig:
    name: Literal["cnn"]
    channels_1: Annotated[Width, about("output channels of the first convolution")]
    channels_2: Annotated[Width, about("output channels of the second convolution")]
    hidden_units: Annotated[Width, about("width of the hidden fully connected layer")]
    conv_dropout: Annotated[Fraction, about("probability of dropping a whole channel (Dropout2d)")]
    hidden_dropout: Annotated[Fraction, about("probability of dropping a hidden unit")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class SGDConfig:
    name: Literal["sgd"]
    learning_rate: Annotated[PositiveFloat, about("step size before scheduling")]
    momentum: Annotated[Fraction, about("share of the previous step that is kept")]
    nesterov: Annotated[Switch, about("Nesterov's form of momentum")]
    weight_decay: Annotated[NonNegativeFloat, about("L2 penalty added to the gradient")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class AdamConfig:
    """Both Adam (L2 penalty in the gradient) and AdamW (decoupled weight decay)."""

    name: Literal["adam", "adamw"]
    learning_rate: Annotated[PositiveFloat, about("step size before scheduling")]
    beta_1: Annotated[Fraction, about("averaging of the gradient")]
    beta_2: Annotated[Fraction, about("averaging of the squared gradient")]
    epsilon: Annotated[PositiveFloat, about("added to the denominator")]
    weight_decay: Annotated[NonNegativeFloat, about("L2 penalty (adam) or decoupled decay (adamw)")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class RMSpropConfig:
    name: Literal["rmsprop"]
    learning_rate: Annotated[PositiveFloat, about("step size before scheduling")]
    alpha: Annotated[Fraction, about("averaging of the squared gradient")]
    momentum: Annotated[Fraction, about("share of the previous step that is kept")]
    epsilon: Annotated[PositiveFloat, about("added to the denominator")]
    weight_decay: Annotated[NonNegativeFloat, about("L2 penalty added to the gradient")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class AdagradConfig:
    name: Literal["adagrad"]
    learning_rate: Annotated[PositiveFloat, about("step size before scheduling")]
    initial_accumulator: Annotated[NonNegativeFloat, about("where the sums of squared gradients begin")]
    epsilon: Annotated[PositiveFloat, about("added to the denominator")]
    weight_decay: Annotated[NonNegativeFloat, about("L2 penalty added to the gradient")]


Warmup = Annotated[Fraction, about("share of all steps in which the learning rate rises to its peak")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class ConstantConfig:
    name: Literal["constant"]
    warmup_fraction: Warmup


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class CosineConfig:
    name: Literal["cosine"]
    warmup_fraction: Warmup
    final_fraction: Annotated[
        Number, Field(ge=0, le=1), about("last learning rate as a share of the peak")
    ]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class StepConfig:
    name: Literal["step"]
    warmup_fraction: Warmup
    every_epochs: Annotated[Count, about("epochs between two drops")]
    factor: Annotated[PositiveFraction, about("what each drop multiplies the learning rate with")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class OneCycleConfig:
    name: Literal["one_cycle"]
    warmup_fraction: Warmup
    initial_divisor: Annotated[Number, Field(ge=1), about("peak / first learning rate")]
    final_divisor: Annotated[Number, Field(ge=1), about("first / last learning rate")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class InverseSqrtConfig:
    name: Literal["inverse_sqrt"]
    warmup_fraction: Warmup
    timescale_epochs: Annotated[
        PositiveFloat, about("epochs after the warmup until the learning rate is 0.71 of its peak")
    ]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class TrackingConfig:
    uri: Annotated[
        Annotated[str, Field(min_length=1, max_length=1000)] | None,
        about("MLflow tracking URI; null: $MLFLOW_TRACKING_URI or mlruns/mlflow.db of the project"),
    ]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class EarlyStoppingConfig:
    patience: Annotated[
        Integer,
        Field(ge=0, le=1_000_000),
        about("stop after this many epochs without improvement; 0: never"),
    ]
    metric: Annotated[Metric, about("validation metric that has to improve")]
    min_delta: Annotated[NonNegativeFloat, about("smallest change that counts as an improvement")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class CheckpointConfig:
    weights: Annotated[Literal["last", "best"], about("which epoch's weights are tested and saved")]
    metric: Annotated[Metric, about("validation metric that decides which epoch is best")]
    every_seconds: Annotated[
        NonNegativeFloat,
        about("least time between two checkpoints, at any step; 0: at the end of every epoch"),
    ]
    every_steps: Annotated[
        Annotated[Integer, Field(ge=1, le=1_000_000_000)] | None,
        about("also after every so many steps; null: by time alone"),
    ]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class RecordConfig:
    plots: Annotated[
        Literal["auto", "always", "never"],
        about("draw each run's pictures; auto: of a sweep's runs only the best, at its end"),
    ]
    mlflow_model: Annotated[Switch, about("also log the model in MLflow's format, to load or serve it")]


ModelConfig = LogisticRegressionConfig | CNNConfig | OwnConfig
OptimizerConfig = SGDConfig | AdamConfig | RMSpropConfig | AdagradConfig | OwnOptimizerConfig
SchedulerConfig = (
    ConstantConfig | CosineConfig | StepConfig | OneCycleConfig | InverseSqrtConfig | OwnConfig
)
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
    study: Annotated[Text, about("the question this run answers; an MLflow experiment")]
    run_name: Annotated[Text | None, about("null: made of the model, the optimizer and the seed")]
    seed: Annotated[Seed, about("initial weights, order of images and dropout derive from it")]
    batch_size: Annotated[Count, about("images in one optimizer step")]
    epochs: Annotated[Count, about("passes over the training images")]
    device: Annotated[
        Literal["auto", "cpu", "cuda"], about("where to train; auto: a GPU if there is one")
    ]
    threads: Annotated[
        Integer, Field(ge=1, le=1024), about("CPU threads; another number gives other rounding")
    ]
    arithmetic: Annotated[
        Literal["native", "portable"],
        about("portable: the same bits on every x86-64 processor, with one thread; slower"),
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
    if data.validation_size == 0:
        problems += _without_validation(config)
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
    is_too_small = config.data.validation_size is None and validation == 0  # for a tenth of it
    return _without_validation(config) if is_too_small else []


def _without_validation(config: Config) -> list[str]:
    needs_validation = {
        "early_stopping.patience": config.early_stopping.patience > 0,
        "checkpoint.weights=best": config.checkpoint.weights == "best",
    }
    return [
        f"{knob} needs a validation split: set data.validation_size to more than 0"
        for knob, needed in needs_validation.items()
        if needed
    ]
