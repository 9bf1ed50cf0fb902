"""The one schema: every knob with its type, range and meaning, and the check that names what is wrong.

Knows neither torch nor Hydra nor MLflow. Values live in conf/; there are no defaults here, so that a
resolved configuration is always complete. A configuration is data, never code: plain numbers and text
under known names.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from digitlab.errors import ConfigError

CLOSED = ConfigDict(extra="forbid")

# Images in the training split. `digits` has no official split; ours is fixed in data.py.
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
class DataConfig:
    name: Literal["digits", "mnist", "fashion_mnist", "kmnist"]
    root: Annotated[
        Text | None, _about("folder of the data sets; null: $DIGITLAB_DATA or the user's cache")
    ]
    validation_size: Annotated[
        Integer, Field(ge=0, lt=60_000), _about("images taken from the training split for validation")
    ]
    split_seed: Annotated[Seed, _about("decides which training images are used for validation")]
    mean: Annotated[
        Number, Field(ge=0, le=1), _about("subtracted from pixels in [0, 1] before training")
    ]
    std: Annotated[PositiveFraction, _about("pixels in [0, 1] are divided by it")]


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


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class RecordConfig:
    mlflow_model: Annotated[
        Switch, _about("also log the model in MLflow's format, to load or serve it")
    ]


ModelConfig = LogisticRegressionConfig | CNNConfig
OptimizerConfig = SGDConfig | AdamConfig | RMSpropConfig
SchedulerConfig = ConstantConfig | CosineConfig | StepConfig | OneCycleConfig


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class Config:
    model: Annotated[ModelConfig, Field(discriminator="name")]
    optimizer: Annotated[OptimizerConfig, Field(discriminator="name")]
    scheduler: Annotated[SchedulerConfig, Field(discriminator="name")]
    data: DataConfig
    tracking: TrackingConfig
    study: Annotated[Text, _about("the question this run answers; an MLflow experiment")]
    run_name: Annotated[Text | None, _about("null: made of the model, the optimizer and the seed")]
    seed: Annotated[Seed, _about("everything random derives from it")]
    batch_size: Annotated[Count, _about("images in one optimizer step")]
    epochs: Annotated[Count, _about("passes over the training images")]
    device: Annotated[
        Literal["auto", "cpu", "cuda"], _about("where to train; auto: a GPU if there is one")
    ]
    threads: Annotated[
        Integer, Field(ge=1, le=1024), _about("CPU threads; another number gives other rounding")
    ]
    early_stopping: EarlyStoppingConfig
    checkpoint: CheckpointConfig
    record: RecordConfig


_CONFIG = TypeAdapter(Config)


@dataclasses.dataclass(frozen=True, slots=True)
class Knob:
    """One leaf of the configuration, such as `optimizer.learning_rate`."""

    path: str
    allowed: str
    choices: tuple[str, ...]
    is_text: bool
    help: str


def to_config(values: Mapping[str, Any]) -> Config:
    """Check plain nested values against the schema; ConfigError lists every problem at once."""
    try:
        config = _CONFIG.validate_python(values)
    except ValidationError as error:
        choices = {group: _name(values.get(group)) for group in _variants()}
        known = knobs(choices)
        raise ConfigError(
            sorted({_describe(problem, known, choices) for problem in error.errors()})
        ) from None
    if problems := _contradictions(config):
        raise ConfigError(problems)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested values, complete: `to_config(to_dict(c)) == c`."""
    return _CONFIG.dump_python(config)  # type: ignore[no-any-return]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted path: `{"model": {"name": "cnn"}}` to `{"model.name": "cnn"}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def knobs(choices: Mapping[str, str | None] | None = None) -> dict[str, Knob]:
    """All knobs by path; of the groups named in `choices` (`{"model": "cnn"}`) only that choice's."""
    found: dict[str, Knob] = {}
    for knob in _walk(Config, "", choices or {}):
        found.setdefault(knob.path, knob)
    return found


def nearest(name: str, known: Mapping[str, Any]) -> str | None:
    """The known path most like `name`; abbreviations count: `optimizer.lr`, `lr`, `wd`."""
    parent, _, leaf = name.rpartition(".")
    abbreviated = [
        path
        for path in known
        if leaf in (_initials(path), _initials(path).replace("_", "")) and path.startswith(parent)
    ]
    if abbreviated:
        return abbreviated[0]
    by_leaf = {path.rpartition(".")[2]: path for path in reversed(list(known))}
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    if close:
        return close[0]
    close = difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.6)
    return by_leaf[close[0]] if close else None


def _initials(path: str) -> str:
    return "".join(word[0] for word in path.rpartition(".")[2].split("_"))


def _name(group: object) -> str | None:
    name = group.get("name") if isinstance(group, Mapping) else None
    return name if isinstance(name, str) else None


def _contradictions(config: Config) -> list[str]:
    """What is wrong with knobs that are each in range."""
    problems = []
    size = NUM_TRAIN[config.data.name]
    validation = config.data.validation_size
    if validation >= size:
        problems.append(
            f"data.validation_size must be less than the {size} training images of "
            f"{config.data.name}, got {validation}"
        )
    elif config.batch_size > size - validation:
        problems.append(
            f"batch_size must be at most the {size - validation} training images of "
            f"{config.data.name}, got {config.batch_size}"
        )
    needs_validation = {
        "early_stopping.patience": config.early_stopping.patience > 0,
        "checkpoint.weights=best": config.checkpoint.weights == "best",
    }
    problems += [
        f"{knob} needs a validation split: set data.validation_size to more than 0"
        for knob, needed in needs_validation.items()
        if needed and validation == 0
    ]
    optimizer = config.optimizer
    if isinstance(optimizer, SGDConfig) and optimizer.nesterov and optimizer.momentum == 0:
        problems.append("optimizer.nesterov needs optimizer.momentum in (0, 1), got 0.0")
    return problems


def _describe(problem: Any, known: Mapping[str, Knob], choices: Mapping[str, str | None]) -> str:
    """One sentence for one pydantic error: path, what is allowed, what came, the nearest name."""
    location = [str(part) for part in problem["loc"]]
    if len(location) > 1 and location[0] in choices:  # pydantic inserts the variant's name
        location = [location[0], *location[2:]]
    path, kind = ".".join(location), problem["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown(path, known, choices)
    if kind.startswith("union_tag"):
        names = ", ".join(_variants()[path])
        return f"{path}.name must be one of {names}, got {_show(problem['input'])}"
    if path not in known:
        return f"{path} must be a group of knobs, got {_show(problem['input'])}"
    allowed = known[path].allowed
    if kind == "missing":
        return f"{path} is missing: it must be {allowed}"
    return f"{path} must be {allowed}, got {_show(problem['input'])}"


def unknown(path: str, known: Mapping[str, Knob], choices: Mapping[str, str | None]) -> str:
    """The sentence that refuses a name that is no knob of this composition."""
    group = path.partition(".")[0]
    for choice in _variants().get(group, ()):
        if choice != choices.get(group) and path in knobs({group: choice}):
            return f"{path} is a knob of {group}={choice}, not of {group}={choices.get(group)}"
    suggestion = nearest(path, known)
    return f"unknown knob {path}" + (f"; did you mean {suggestion}?" if suggestion else "")


def _show(value: Any) -> str:
    text = repr(value) if not isinstance(value, bool) and value is not None else str(value).lower()
    text = "null" if value is None else text
    return text if len(text) <= 80 else text[:77] + "..."


def _variants() -> dict[str, dict[str, type]]:
    """The choices of each group whose knobs depend on the choice: group -> name -> dataclass."""
    found: dict[str, dict[str, type]] = {}
    for group, hint in typing.get_type_hints(Config, include_extras=True).items():
        bare, _ = _unwrap(hint)
        if _is_union(bare) and all(map(dataclasses.is_dataclass, bare.__args__)):
            found[group] = {
                name: variant
                for variant in bare.__args__
                for name in typing.get_args(typing.get_type_hints(variant)["name"])
            }
    return found


def _walk(schema: type, prefix: str, choices: Mapping[str, str | None]) -> Iterator[Knob]:
    for name, hint in typing.get_type_hints(schema, include_extras=True).items():
        bare, metadata = _unwrap(hint)
        if name in _variants() and not prefix:
            variants = _variants()[name]
            chosen = variants.get(choices.get(name) or "")
            for variant in [chosen] if chosen else variants.values():
                yield from _walk(variant, f"{name}.", choices)
        elif dataclasses.is_dataclass(bare):
            yield from _walk(typing.cast(type, bare), f"{prefix}{name}.", choices)
        else:
            yield _knob(f"{prefix}{name}", bare, metadata)


def _unwrap(hint: Any) -> tuple[Any, list[Any]]:
    """`Annotated[Annotated[int, a], b]` to `(int, [a, b])`, with pydantic's fields taken apart."""
    metadata: list[Any] = []
    if typing.get_origin(hint) is Annotated:
        hint, *extra = typing.get_args(hint)
        for item in extra:
            metadata += [item, *item.metadata] if isinstance(item, FieldInfo) else [item]
    return hint, metadata


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _knob(path: str, hint: Any, metadata: list[Any]) -> Knob:
    about = [m.description for m in metadata if isinstance(m, FieldInfo) and m.description]
    optional = _is_union(hint)
    if optional:
        hint, inner = _unwrap(hint.__args__[0])
        metadata = [*metadata, *inner]
    choices: tuple[str, ...] = ()
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        allowed = "one of " + ", ".join(choices) if len(choices) > 1 else choices[0]
    elif hint is bool:
        choices, allowed = ("true", "false"), "true or false"
    elif hint is str:
        allowed = "text (quote it if it looks like something else)"
    else:
        allowed = _range("an integer" if hint is int else "a number", metadata)
    if optional:
        choices, allowed = (*choices, "null"), f"{allowed}, or null"
    return Knob(path, allowed, choices, hint is str, about[-1] if about else "")


def _range(kind: str, metadata: list[Any]) -> str:
    """`a number in (0, 1]`, `an integer >= 0`, from the bounds in the annotations."""
    low = next((m for m in metadata if isinstance(m, Gt | Ge)), None)
    high = next((m for m in metadata if isinstance(m, Lt | Le)), None)
    match low, high:
        case None, None:
            return kind
        case (Gt(gt=bound), None):
            return f"{kind} > {bound}"
        case (Ge(ge=bound), None):
            return f"{kind} >= {bound}"
    opening, lowest = ("(", low.gt) if isinstance(low, Gt) else ("[", low.ge)  # type: ignore[union-attr]
    closing, highest = (")", high.lt) if isinstance(high, Lt) else ("]", high.le)  # type: ignore[union-attr]
    return f"{kind} in {opening}{lowest}, {highest}{closing}"
