"""The schema of the groups `sweep` and `executor`: how a sweep is made, not what a run is.

Values live in conf/sweep/ and conf/executor/; like the knobs of a run they have no defaults here.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from digitlab.config.checking import shown
from digitlab.config.knobs import nearest
from digitlab.config.schema import CLOSED, Integer, Metric, Number, Seed, Text
from digitlab.errors import ConfigError

SEARCHES = ("grid", "random", "tpe", "gp", "cmaes")
PRUNERS = ("none", "median", "asha", "hyperband")

Scalar = str | int | float | bool | None


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included.

    In a grid: `num` of them, evenly spaced (in the logarithm with `log`). In a search: any of them;
    integers if both ends are integers.
    """

    low: Number | Integer
    high: Number | Integer
    log: bool = False
    num: Annotated[Integer, Field(ge=1, le=100_000)] | None = None


Axis = list[Scalar] | Interval | Scalar


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class Block:
    """One of several sweeps that follow one another."""

    grid: dict[str, Axis] = Field(default_factory=dict)
    zip: dict[str, Axis] = Field(default_factory=dict)
    exclude: list[dict[str, Scalar]] = Field(default_factory=list)


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class SweepSettings:
    name: Text | None
    search: Literal["grid", "random", "tpe", "gp", "cmaes"]
    trials: Annotated[Integer, Field(ge=1, le=1_000_000)] | None
    repeats: Annotated[Integer, Field(ge=1, le=10_000)]
    metric: Metric
    pruner: Literal["none", "median", "asha", "hyperband"]
    seed: Seed
    grid: dict[str, Axis]
    zip: dict[str, Axis]
    exclude: list[dict[str, Scalar]]
    concat: list[Block]
    space: dict[str, Axis]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class ProcessesSettings:
    name: Literal["processes"]
    workers: Annotated[Integer, Field(ge=1, le=1024)] | None
    per_gpu: Annotated[Integer, Field(ge=1, le=64)]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class InProcessSettings:
    name: Literal["inprocess"]


ExecutorSettings = ProcessesSettings | InProcessSettings
EXECUTORS = [get_args(get_type_hints(kind)["name"])[0] for kind in get_args(ExecutorSettings)]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class EngineSettings:
    """How trials are trained."""

    name: Literal["auto", "fused", "sequential"]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class Settings:
    sweep: SweepSettings
    engine: EngineSettings
    executor: Annotated[ExecutorSettings, Field(discriminator="name")]


_SETTINGS = TypeAdapter(Settings)
ALLOWED = {
    "sweep.name": "text of 1 to 200 characters, or null",
    "sweep.search": f"one of {', '.join(SEARCHES)}",
    "sweep.trials": "an integer in [1, 1000000], or null (grid: all of them)",
    "sweep.repeats": "an integer in [1, 10000]: seeds for each point",
    "sweep.metric": "one of validation/accuracy, validation/loss",
    "sweep.pruner": f"one of {', '.join(PRUNERS)}",
    "sweep.seed": "an integer in [0, 9223372036854775808)",
    "sweep.grid": "knobs with their values: a list, or {low: , high: , num: , log: }",
    "sweep.zip": "knobs with lists of the same length: row by row",
    "sweep.exclude": "a list of combinations such as {model: cnn, batch_size: 1000}",
    "sweep.concat": "a list of sweeps, each with grid, zip and exclude of its own",
    "sweep.space": "knobs with what a search may choose: a list, or {low: , high: , log: }",
    "engine.name": "one of auto, fused, sequential",
    "executor.name": f"one of {', '.join(EXECUTORS)}",
    "executor.workers": "an integer in [1, 1024], or null: one for each core",
    "executor.per_gpu": "an integer in [1, 64]: workers that share a GPU",
}


def to_settings(values: Mapping[str, Any]) -> Settings:
    """Check plain nested values; ConfigError lists every problem at once."""
    try:
        settings = _SETTINGS.validate_python(_always_exact(values))
    except ValidationError as error:
        raise ConfigError(list(dict.fromkeys(map(_describe, error.errors())))) from None
    problems = _contradictions(settings.sweep)
    if settings.engine.name == "fused" and settings.sweep.search != "grid":
        problems.append(
            f"engine=fused needs sweep.search=grid, got {settings.sweep.search}: a search chooses its "
            "trials one after another"
        )
    if problems:
        raise ConfigError(problems)
    return settings


def _always_exact(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without `engine.exact`, which conf/ and manifests of an earlier digitlab have.

    Raises:
        ConfigError: it is false.
    """
    engine = values.get("engine")
    if not isinstance(engine, Mapping) or "exact" not in engine:
        return values
    if engine["exact"] is not True:
        given = shown(engine["exact"])
        reason = "trials side by side always have the bits of each alone"
        raise ConfigError([f"engine.exact={given} is no setting any more: {reason}"])
    return {**values, "engine": {"name": engine.get("name")}}


def to_values(settings: Settings) -> dict[str, Any]:
    return _SETTINGS.dump_python(settings)  # type: ignore[no-any-return]


def _describe(problem: Any) -> str:
    location, given = [str(part) for part in problem["loc"]], problem["input"]
    if problem["type"].startswith("union_tag"):
        location, given = [*location, "name"], given.get("name")
    elif location[0] == "executor" and len(location) > 1:  # pydantic inserts the variant's name
        location = [location[0], *location[2:]]
    path = ".".join(location[:2])
    got = given if isinstance(given, str) else shown(given)
    if path == "sweep.metric" and got.startswith("test/"):
        return (
            f"sweep.metric must be {ALLOWED[path]}, got {got}: choosing by the test split would make "
            "its score worthless; it is looked at once, after the choice"
        )
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden") and path not in ALLOWED:
        hint = nearest(path, ALLOWED)
        return f"unknown setting {path}" + (f"; did you mean {hint}?" if hint else "")
    if path not in ALLOWED:
        return f"{path} must be a group of settings, got {got}"
    if problem["type"] == "missing" and len(location) == 2:
        return f"{path} is missing: begin the file with `defaults: [default, _self_]`"
    where = f" (at {'.'.join(location[2:])})" if len(location) > 2 else ""
    return f"{path} must be {ALLOWED[path]}, got {got}{where}"


def _contradictions(sweep: SweepSettings) -> list[str]:
    problems = []
    if sweep.search == "grid":
        if sweep.trials is not None:
            problems.append(
                f"sweep.trials={sweep.trials} needs a search (sweep.search=random, tpe, gp or cmaes): "
                "a grid runs all of its trials"
            )
        if sweep.pruner != "none":
            problems.append(
                f"sweep.pruner={sweep.pruner} needs a search: a grid runs all of its trials"
            )
        if sweep.space:
            problems.append("sweep.space needs a search: a grid takes its knobs from sweep.grid")
    else:
        if sweep.trials is None:
            problems.append(f"sweep.search={sweep.search} needs sweep.trials: how many points to try")
        given = {"zip": sweep.zip, "exclude": sweep.exclude, "concat": sweep.concat}
        problems += [f"sweep.{name} needs sweep.search=grid" for name, part in given.items() if part]
    if sweep.pruner != "none" and sweep.repeats > 1:
        problems.append(
            f"sweep.pruner={sweep.pruner} needs sweep.repeats=1: one seed's early epochs do not decide "
            f"about {sweep.repeats}"
        )
    return problems
