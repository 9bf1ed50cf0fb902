"""The schema of the groups `sweep`, `engine` and `executor`: how a sweep is made, not what a run is.

Values live in conf/sweep/ and conf/executor/; like the knobs of a run they have no defaults here.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from digitlab.config.checking import shown
from digitlab.config.kinds import CLOSED, Integer, Metric, Number, Seed, Text
from digitlab.config.knobs import knob_of, nearest
from digitlab.errors import ConfigError


def _about(text: str) -> Any:
    return Field(description=text)


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
    trials: Annotated[
        Annotated[Integer, Field(ge=1, le=1_000_000)] | None, _about("points that a search tries")
    ]
    repeats: Annotated[Integer, Field(ge=1, le=10_000), _about("seeds for each point")]
    metric: Metric
    target: Annotated[
        Number | None, _about("value of sweep.metric; once it is reached no further trial starts")
    ]
    pruner: Literal["none", "median", "asha", "hyperband"]
    seed: Seed
    grid: Annotated[
        dict[str, Axis], _about("knobs with values: a list, or {low: , high: , num: , log: }")
    ]
    zip: Annotated[dict[str, Axis], _about("knobs with lists of the same length: row by row")]
    exclude: Annotated[
        list[dict[str, Scalar]], _about("a list of combinations such as {model: cnn, batch_size: 1000}")
    ]
    concat: Annotated[
        list[Block], _about("a list of sweeps, each with grid, zip and exclude of its own")
    ]
    space: Annotated[
        dict[str, Axis],
        _about("knobs with what a search chooses from: a list, or {low: , high: , log: }"),
    ]


# One description of a setting that several executors have: messages know it by its path.
Workers = Annotated[
    Annotated[Integer, Field(ge=1, le=1024)] | None,
    _about("at the same time; null: as many as cores, GPUs or the cluster allow"),
]
Gpus = Annotated[Integer, Field(ge=0, le=64), _about("of a job; without any, trials use the CPU")]
TrialsPerJob = Annotated[
    Integer,
    Field(ge=1, le=10_000),
    _about("what a job trains one after another: trials, or chunks side by side"),
]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class ProcessesSettings:
    name: Literal["processes"]
    workers: Workers
    per_gpu: Annotated[Integer, Field(ge=1, le=64), _about("workers that share a GPU")]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class InProcessSettings:
    name: Literal["inprocess"]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class SlurmSettings:
    name: Literal["slurm"]
    workers: Workers
    partition: Annotated[Text | None, _about("by default the cluster's own default")]
    minutes: Annotated[
        Integer,
        Field(ge=1, le=1_000_000),
        _about("a job's time limit; what is not done by then is queued again and goes on"),
    ]
    cpus: Annotated[
        Annotated[Integer, Field(ge=1, le=1024)] | None,
        _about("of a job; by default the threads of a trial"),
    ]
    gpus: Gpus
    memory: Annotated[Text | None, _about("of a job, as SLURM writes it: 4G")]
    trials_per_job: TrialsPerJob
    sbatch: Annotated[
        dict[str, Scalar], _about("further options of sbatch: {account: lab, constraint: avx512}")
    ]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class DaskSettings:
    name: Literal["dask"]
    scheduler: Annotated[
        Text | None, _about("its address, such as tcp://host:8786; by default one is started here")
    ]
    workers: Workers
    gpus: Gpus
    trials_per_job: TrialsPerJob


ClusterSettings = SlurmSettings | DaskSettings  # whose workers may be on other machines
ExecutorSettings = ProcessesSettings | InProcessSettings | ClusterSettings
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


def _allowed() -> dict[str, str]:
    """What each setting may be, by its path: what its type says, and what it is about."""
    kinds = [("sweep", SweepSettings), ("engine", EngineSettings)]
    kinds += [("executor", kind) for kind in get_args(ExecutorSettings)]
    knobs = [
        knob_of(f"{group}.{name}", hint)
        for group, kind in kinds
        for name, hint in get_type_hints(kind, include_extras=True).items()
    ]
    allowed = {k.path: ": ".join(filter(None, (k.allowed, k.help))) for k in knobs}
    return allowed | {"executor.name": f"one of {', '.join(EXECUTORS)}"}


ALLOWED = _allowed()


def to_settings(values: Mapping[str, Any]) -> Settings:
    """Check plain nested values; ConfigError lists every problem at once."""
    values, problems = _always_exact(values)
    try:
        settings = _SETTINGS.validate_python(values)
    except ValidationError as error:
        raise ConfigError(list(dict.fromkeys([*problems, *map(_describe, error.errors())]))) from None
    problems += _contradictions(settings.sweep)
    if settings.engine.name == "fused" and settings.sweep.search != "grid":
        problems.append(
            f"engine=fused needs sweep.search=grid, got {settings.sweep.search}: a search chooses its "
            "trials one after another"
        )
    if problems:
        raise ConfigError(problems)
    return settings


def _always_exact(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Without `engine.exact`, which an earlier digitlab wrote; a problem if it is false."""
    engine = values.get("engine")
    if not isinstance(engine, Mapping) or "exact" not in engine:
        return values, []
    problems = []
    if engine["exact"] is not True:
        given = shown(engine["exact"])
        reason = "trials side by side always have the bits of each alone"
        problems.append(f"engine.exact={given} is no setting any more: {reason}")
    return {**values, "engine": {k: v for k, v in engine.items() if k != "exact"}}, problems


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


def is_maximised(metric: Metric) -> bool:
    return metric.endswith("accuracy")


def _contradictions(sweep: SweepSettings) -> list[str]:
    problems = []
    most = 1 if is_maximised(sweep.metric) else math.inf
    if sweep.target is not None and not 0 <= sweep.target <= most:
        allowed = "from 0 to 1 (0.99 means 99 %)" if most == 1 else "at least 0"
        problems.append(f"sweep.target must be {allowed} for {sweep.metric}, got {sweep.target}")
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
