"""What a sweep varies: from the command line and conf/sweep/ to points, none of them lost silently.

A point is one value for each knob that varies, as it would be typed: `{"model": "cnn", "seed": "3"}`.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence

from digitlab.config.checking import as_param
from digitlab.config.composition import Composer
from digitlab.config.knobs import knobs
from digitlab.config.overrides import Span, about_hydra, is_about_sweep, quoted, swept
from digitlab.errors import ConfigError
from digitlab.sweep.settings import Axis, Block, Interval, Scalar, Settings

Point = dict[str, str]

# These say where a run goes; within one sweep they are the same.
NOT_SWEPT = ("study", "run_name", "tracking")


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A command line taken apart: what is fixed, what varies, what concerns the sweep."""

    fixed: dict[str, str]  # knob or group -> the whole override
    axes: dict[str, list[str] | Span]
    settings: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Space:
    """What a search chooses from: some values, or an interval, of each knob."""

    axes: dict[str, list[str] | Interval]


def read_line(overrides: Sequence[str], composer: Composer) -> Line:
    line = Line({}, {}, [])
    problems = []
    for override in composer.parse_all(overrides):
        name, text = override.key_or_group, override.input_line or ""
        values = swept(override)
        if problem := about_hydra(override):
            problems.append(problem)
        elif is_about_sweep(override):
            line.settings.append(text)
        elif values is None:
            line.fixed[name] = text
        elif name.partition(".")[0] in NOT_SWEPT:
            problems.append(f"{name} cannot be swept: the runs of a sweep stay together")
        elif values == []:
            problems.append(f"{text} has no value at all")
        else:
            line.axes[name] = values
    if problems:
        raise ConfigError(problems)
    return line


def grid_points(settings: Settings, line: Line, composer: Composer) -> list[Point]:
    """All combinations; in the file's order and, within those, in that of the command line.

    Raises:
        ConfigError: a knob is given twice, rows of unequal length, an exclusion that excludes nothing,
            or none left.
    """
    sweep = settings.sweep
    grid = {k: v for k, v in sweep.grid.items() if k not in line.axes and k not in line.fixed}
    problems: list[str] = []
    top = _combine(Block(grid=grid, zip=sweep.zip), "sweep", composer, problems)
    blocks = [
        _combine(block, f"sweep.concat[{i}]", composer, problems)
        for i, block in enumerate(sweep.concat)
    ]
    typed = []
    for knob, values in line.axes.items():
        if isinstance(values, Span):
            problems.append(f"{knob} is an interval: that needs a search, such as sweep.search=random")
        else:
            typed.append([{knob: value} for value in values])
    points = [
        merged
        for parts in itertools.product(top, [p for b in blocks for p in b] if blocks else [{}], *typed)
        if (merged := _merge(parts, problems)) is not None
    ]
    given = dict.fromkeys(knob for point in points for knob in point if knob in line.fixed)
    problems += [f"{k} is both fixed on the command line and swept by conf/sweep/" for k in given]
    points = _exclude(points, sweep.exclude, "sweep.exclude", composer, problems)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return points


def search_space(settings: Settings, line: Line, composer: Composer) -> Space:
    """What each point of a search is chosen from.

    Raises:
        ConfigError: nothing to choose from, or an interval that is none.
    """
    sweep, problems = settings.sweep, list[str]()
    axes: dict[str, list[str] | Interval] = {}
    for knob, axis in {**sweep.grid, **sweep.space}.items():
        if knob in line.fixed or knob in line.axes:
            continue
        if isinstance(axis, Interval) and axis.num is None:
            axes[knob] = axis
        else:
            axes[knob] = _values(knob, axis, "sweep.space", composer, problems)
    for knob, values in line.axes.items():
        if isinstance(values, Span):
            axes[knob] = Interval(low=values.low, high=values.high, log=values.log)
        else:
            axes[knob] = values
    axes = {knob: _checked(knob, axis, problems) for knob, axis in axes.items()}
    if not axes:
        problems.append(
            f"sweep.search={sweep.search} has nothing to choose from: give sweep.space, "
            "or a knob such as 'optimizer.learning_rate=tag(log, interval(1e-4, 1e-1))'"
        )
    if sweep.search == "cmaes" and (texts := [k for k, a in axes.items() if isinstance(a, list)]):
        problems.append(f"sweep.search=cmaes chooses numbers only, not {', '.join(texts)}")
    if problems:
        raise ConfigError(problems)
    return Space(axes)


def _checked(knob: str, axis: list[str] | Interval, problems: list[str]) -> list[str] | Interval:
    """The axis, in whole numbers where the knob is one: Hydra reads interval(1, 9) as 1.0 to 9.0."""
    if not isinstance(axis, Interval):
        return axis
    if why := _unusable(axis):
        problems.append(f"{knob} {why}")
    elif knob in knobs() and knobs()[knob].is_integer:
        return dataclasses.replace(axis, low=math.ceil(axis.low), high=math.floor(axis.high))
    return axis


def shown_name(point: Mapping[str, str]) -> str:
    """`cnn learning_rate=0.01 seed=3`, with `lr` for the learning rate as everybody says."""
    leaves = [knob.rpartition(".")[2] for knob in point]
    parts = []
    for (knob, value), leaf in zip(point.items(), leaves, strict=True):
        short = "lr" if leaf == "learning_rate" else leaf if leaves.count(leaf) == 1 else knob
        is_group = "." not in knob and not re.fullmatch(r"-?[\d.]+(e-?\d+)?|true|false|null", value)
        parts.append(value if is_group else f"{short}={value}")
    return " ".join(parts)


def _combine(block: Block, where: str, composer: Composer, problems: list[str]) -> list[Point]:
    """The points of one block: rows of `zip`, times every value of `grid`, less what is excluded."""
    grid = {k: _values(k, axis, f"{where}.grid", composer, problems) for k, axis in block.grid.items()}
    rows = {k: _values(k, axis, f"{where}.zip", composer, problems) for k, axis in block.zip.items()}
    lengths = {knob: len(values) for knob, values in rows.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{knob} {length}" for knob, length in lengths.items())
        problems.append(f"{where}.zip needs lists of the same length, got {listed}")
        return []
    zipped = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)] or [{}]
    crossed = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    points = [p for pair in itertools.product(zipped, crossed) if (p := _merge(pair, problems))]
    return _exclude(points or [{}], block.exclude, f"{where}.exclude", composer, problems)


def _merge(parts: Sequence[Point], problems: list[str]) -> Point | None:
    merged: Point = {}
    for part in parts:
        if twice := merged.keys() & part.keys():
            problems.append(f"{', '.join(sorted(twice))}: swept in two places at once")
            return None
        merged |= part
    return merged


def _values(knob: str, axis: Axis, where: str, composer: Composer, problems: list[str]) -> list[str]:
    """The values of one axis as they would be typed."""
    if knob.partition(".")[0] in NOT_SWEPT:
        problems.append(f"{where}: {knob} cannot be swept: the runs of a sweep stay together")
        return []
    if isinstance(axis, Interval):
        return _spaced(knob, axis, where, problems)
    if isinstance(axis, str):  # Hydra's own grammar: "range(1, 5)", "0.1,0.01"
        values = swept(composer.parse_all([f"{knob}={axis}"])[0])
        if isinstance(values, Span):
            problems.append(f"{where}: {knob} is an interval: that needs a search")
            return []
        return [axis] if values is None else values
    listed = axis if isinstance(axis, list) else [axis]
    values = [_as_text(knob, value, composer) for value in listed]
    if not values:
        problems.append(f"{where}: {knob} has no value at all")
    return values


def _spaced(knob: str, axis: Interval, where: str, problems: list[str]) -> list[str]:
    if why := _unusable(axis):
        problems.append(f"{where}: {knob} {why}")
        return []
    if axis.num is None:
        problems.append(f"{where}: {knob} is an interval: give num, how many values, or use a search")
        return []
    shares = [i / (axis.num - 1) for i in range(axis.num)] if axis.num > 1 else [0.0]
    low, high = axis.low, axis.high
    exact = [
        low * (high / low) ** share if axis.log else low + (high - low) * share for share in shares
    ]
    if isinstance(low, int) and isinstance(high, int):
        return [str(round(value)) for value in exact]
    return [repr(float(f"{value:.12g}")) for value in exact]  # 0.001, not 0.0010000000000000002


def _unusable(axis: Interval) -> str | None:
    if not axis.low < axis.high or not math.isfinite(axis.high - axis.low):
        return f"needs low < high, got low={axis.low} and high={axis.high}"
    if axis.log and axis.low <= 0:
        return f"needs low > 0 on a log scale, got {axis.low}"
    return None


def _exclude(
    points: list[Point],
    rules: Sequence[Mapping[str, Scalar]],
    where: str,
    composer: Composer,
    problems: list[str],
) -> list[Point]:
    left = points
    for rule in rules:
        texts = {knob: _as_text(knob, value, composer) for knob, value in rule.items()}
        values = {knob: composer.value(knob, text) for knob, text in texts.items()}
        hit = [
            point
            for point in points
            if all(k in point and composer.value(k, point[k]) == v for k, v in values.items())
        ]
        if not hit:
            listed = ", ".join(f"{knob}={value}" for knob, value in texts.items())
            problems.append(f"{where}: no combination has {listed}, so there is nothing to exclude")
        left = [point for point in left if point not in hit]
    if points and not left:
        problems.append(f"{where} excludes all {len(points)} combinations")
    return left


def _as_text(knob: str, value: Scalar, composer: Composer) -> str:
    """A value of YAML as it would be typed in an override."""
    text = as_param(value)
    try:
        is_plain = composer.value(knob, text) == value
    except ConfigError:
        is_plain = False
    return text if is_plain else quoted(text)
