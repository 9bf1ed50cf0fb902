"""From a command line to a sweep ready to be frozen: every trial composed and checked.

Reads conf/ once; what comes out needs it no more.
"""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence, Set
from typing import Any

from digitlab.config.checking import as_param, flatten, recorded_config, set_leaf, to_dict
from digitlab.config.composition import Composer, composer
from digitlab.config.kinds import OwnConfig
from digitlab.config.schema import Config
from digitlab.data.sources import read, source_of, tell_warnings
from digitlab.errors import ConfigError
from digitlab.runs import provenance
from digitlab.sweep.manifest import Base, Manifest, Trial
from digitlab.sweep.planning import axes
from digitlab.sweep.planning.identity import (
    check_sizes,
    forget_data,
    placed,
    shared_device,
    trial_fingerprint,
    with_key,
)
from digitlab.sweep.planning.space import Line, Point, grid_points, read_line, search_space, shown_name
from digitlab.sweep.settings import ExecutorSettings, Interval, Settings, to_settings
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.run_folder import now

MAX_PROBLEMS = 40
MAX_BASES = 1000
MOST_TRIED = 32  # of a user's own models, with other knobs: one takes milliseconds


def plan(overrides: Sequence[str]) -> Manifest:
    """The sweep that `overrides` mean, not frozen yet: its id is empty.

    Raises:
        ConfigError: with every problem of every trial.
    """
    forget_data()
    with composer() as conf:
        line = read_line(overrides, conf)
        settings = to_settings(conf.compose_sweep(line.settings))
        if settings.sweep.search != "grid":
            return _plan_search(line, settings, conf)
        points = grid_points(settings, line, conf)
        composed = _compose_all([[*line.fixed.values(), *_overrides(p)] for p in points], points, conf)
    return _plan_trials(list(zip(points, composed, strict=True)), settings)


def refreshed(manifest: Manifest) -> Manifest:
    """The same under today's source and data: equal, key and all, if neither has changed."""
    forget_data()
    configs = [trial.config() for trial in manifest.trials]
    trials = [
        dataclasses.replace(trial, fingerprint=trial_fingerprint(config, manifest.settings.executor))
        for trial, config in zip(manifest.trials, configs, strict=True)
    ]
    configs = configs or [recorded_config(base.values) for base in manifest.bases]
    device = shared_device(configs, manifest.settings.executor)
    return with_key(dataclasses.replace(manifest, trials=trials, device=device))


def trial_of_search(manifest: Manifest, number: int, point: int, chosen: Point, seed: int) -> Trial:
    """The trial of a search at a point; `seed` counts the repetitions of the point from 0."""
    base = manifest.base_of(chosen)
    values = copy.deepcopy(base.values)
    for knob, text in chosen.items():
        if knob not in base.groups:
            set_leaf(values, knob, axes.value(manifest.axes[knob], text))
    config = recorded_config(values)
    check_sizes(config)
    swept = dict(chosen)
    if manifest.settings.sweep.repeats > 1:
        config = dataclasses.replace(config, seed=config.seed + seed)
        swept["seed"] = str(config.seed)
    return _trial(number, point, swept, config, manifest.settings.executor)


def verify_data(manifest: Manifest, say: Callable[[str], None]) -> None:
    """Read (and if need be download) every data set of the sweep, and try a user's own models on the
    shapes of its images, before anything starts.

    say: told once what a user should know of them.

    Raises:
        DataError: one is missing or damaged. UsageError: a model fails, or does not fit the data.
    """
    configs = [trial.config() for trial in manifest.trials] or [
        recorded_config(b.values) for b in manifest.bases
    ]
    for source in dict.fromkeys(source_of(config.data) for config in configs):
        data = read(source)[0]
        tell_warnings(source, data, say)
        models = dict.fromkeys(c.model for c in configs if source_of(c.data) == source)
        own = [model for model in models if isinstance(model, OwnConfig)][:MOST_TRIED]
        if own:
            from digitlab.models.build import build_model  # imports torch

            height, width, *channels = data.train[0].shape[1:]
            shape = (*(channels or [1]), height, width)
            for model in own:
                build_model(model, 0, image_shape=shape, num_classes=len(data.class_names))


def _plan_trials(pairs: Sequence[tuple[Point, Config]], settings: Settings) -> Manifest:
    _check_one_arithmetic({config.arithmetic for _, config in pairs})
    repeats = settings.sweep.repeats
    if repeats > 1 and any("seed" in point for point, _ in pairs):
        raise ConfigError(["sweep.repeats sets the seeds, so seed cannot be swept as well"])
    _check_repetitions(pairs)
    pairs = _completed(pairs)
    trials: list[Trial] = []
    numbers: dict[Config, int] = {}
    for point, config in pairs:
        number = numbers.setdefault(dataclasses.replace(config, seed=0), len(numbers))
        for repetition in range(repeats):
            seeded = dataclasses.replace(config, seed=config.seed + repetition)
            swept = {**point, "seed": str(seeded.seed)} if repeats > 1 else point
            trials.append(_trial(len(trials), number, swept, seeded, settings.executor))
    return _manifest(settings, [config for _, config in pairs], trials=trials)


def _check_repetitions(pairs: Sequence[tuple[Point, Config]]) -> None:
    """Raises ConfigError for trials that are the same as the schema reads them: 0 and 0.0."""
    first: dict[Config, int] = {}
    problems = []
    for number, (point, config) in enumerate(pairs):
        if (other := first.setdefault(config, number)) != number:
            names = [shown_name(p) or "nothing varies" for p in (point, pairs[other][0])]
            both = " and ".join(dict.fromkeys(names))
            problems.append(
                f"trial {number} is the same as trial {other} ({both}): leave one out, or exclude it"
            )
    if problems:
        raise ConfigError([*_cut(problems), "nothing was started"])


def _completed(pairs: Sequence[tuple[Point, Config]]) -> list[tuple[Point, Config]]:
    """Points that name every knob that differs: one block of a file may fix what another sweeps."""
    names = list(dict.fromkeys(knob for point, _ in pairs for knob in point))
    if all(len(point) == len(names) for point, _ in pairs):
        return list(pairs)
    wholes = []
    for point, config in pairs:
        flat = flatten(to_dict(config))
        paths = {name: f"{name}.name" if f"{name}.name" in flat else name for name in names}
        known = {name: as_param(flat[path]) for name, path in paths.items() if path in flat}
        wholes.append({**known, **point})
    varying = [name for name in names if len({whole.get(name) for whole in wholes}) > 1]
    return [
        ({name: whole[name] for name in varying if name in whole}, config)
        for whole, (_, config) in zip(wholes, pairs, strict=True)
    ]


def _plan_search(line: Line, settings: Settings, conf: Composer) -> Manifest:
    space = search_space(settings, line, conf)
    groups = {k: axis for k, axis in space.axes.items() if conf.is_group(k) and isinstance(axis, list)}
    choices = [dict(zip(groups, values, strict=True)) for values in itertools.product(*groups.values())]
    if len(choices) > MAX_BASES:
        raise ConfigError([f"a search over {len(choices)} combinations of groups is too wide"])
    if settings.sweep.repeats > 1 and "seed" in space.axes:
        raise ConfigError(["sweep.repeats sets the seeds, so seed cannot be swept as well"])
    configs = _compose_all([[*line.fixed.values(), *_overrides(c)] for c in choices], choices, conf)
    chosen = space.axes.get("arithmetic")
    _check_one_arithmetic(set(chosen) if isinstance(chosen, list) else {c.arithmetic for c in configs})
    frozen: dict[str, axes.Axis] = {}
    for knob, axis in space.axes.items():
        if isinstance(axis, Interval):
            frozen[knob] = {"low": axis.low, "high": axis.high, "log": axis.log}
        else:
            values = [] if knob in groups else [conf.value(knob, text) for text in axis]
            listed = values or axis
            if any(listed.index(value) < i for i, value in enumerate(listed)):
                raise ConfigError([f"{knob} has a choice twice: {', '.join(axis)}"])
            frozen[knob] = {"choices": axis, "values": values}
    manifest = _manifest(
        settings,
        configs,
        axes=frozen,
        bases=_bases(choices, configs, [knob for knob in frozen if knob not in groups]),
    )
    _check_corners(manifest)
    return manifest


def _bases(choices: Sequence[Point], configs: Sequence[Config], knobs: Sequence[str]) -> list[Base]:
    """knobs: to be chosen. One that no choice of groups has is a mistake, which no base may lack."""
    values = [to_dict(config) for config in configs]
    leaves = [flatten(nested).keys() for nested in values]
    known = {knob for knob in knobs if any(knob in own for own in leaves)}
    return [
        Base(groups=groups, values=nested, lacks=[k for k in knobs if k in known and k not in own])
        for groups, nested, own in zip(choices, values, leaves, strict=True)
    ]


def _check_one_arithmetic(chosen: Set[str]) -> None:
    if len(chosen) > 1:
        raise ConfigError(
            [
                "arithmetic cannot be swept, since a process computes in one and trains many trials: "
                f"make two sweeps, {' and '.join(f'arithmetic={name}' for name in sorted(chosen))}",
                "nothing was started",
            ]
        )


def _check_corners(manifest: Manifest) -> None:
    """Both ends of every interval and every choice, for every choice of groups: all must be legal."""
    problems: dict[str, None] = {}
    for base in manifest.bases:
        left_out = {*base.groups, *base.lacks}
        rest = {knob: axis for knob, axis in manifest.axes.items() if knob not in left_out}
        corners = {knob: axes.ends(axis) for knob, axis in rest.items()}
        for i in range(max(map(len, corners.values()), default=1)):
            chosen = {knob: texts[min(i, len(texts) - 1)] for knob, texts in corners.items()}
            try:
                trial_of_search(manifest, 0, 0, {**base.groups, **chosen}, 0)
            except ConfigError as error:
                problems |= dict.fromkeys(f"{shown_name(base.groups)}: {p}" for p in error.problems)
    if problems:
        raise ConfigError(_cut(list(problems)))


def _compose_all(lists: Sequence[list[str]], points: Sequence[Point], conf: Composer) -> list[Config]:
    """Every configuration, or every problem: what is wrong with all of them alike is said once."""
    configs: list[Config] = []
    numbers_of: dict[str, list[int]] = {}
    for number, overrides in enumerate(lists):
        try:
            configs.append(conf.compose(overrides))
            check_sizes(configs[-1])
        except ConfigError as error:
            for problem in error.problems:
                numbers_of.setdefault(problem, []).append(number)
    if not numbers_of:
        return configs
    problems = []
    for problem, numbers in numbers_of.items():
        if len(numbers) == len(lists):
            problems.append(problem)
        else:
            problems += [f"trial {n} ({shown_name(points[n])}): {problem}" for n in numbers]
    raise ConfigError([*_cut(problems), "nothing was started"])


def _cut(problems: list[str]) -> list[str]:
    more = len(problems) - MAX_PROBLEMS
    return problems if more <= 0 else [*problems[:MAX_PROBLEMS], f"... and {more} more problems"]


def _manifest(
    settings: Settings, configs: Sequence[Config], *, trials: list[Trial] | None = None, **parts: Any
) -> Manifest:
    if settings.sweep.target is not None and any(c.data.validation_size == 0 for c in configs):
        raise ConfigError(
            ["sweep.target needs a validation split: set data.validation_size to more than 0"]
        )
    trials, config = trials or [], configs[0]
    varying = list(dict.fromkeys(k for trial in trials for k in trial.swept))
    varying = varying or list(parts.get("axes", []))
    leaves = " x ".join(knob.rpartition(".")[2] for knob in varying)
    return with_key(
        Manifest(
            id="",
            key="",
            name=(settings.sweep.name or leaves or config.run_name or "one trial")[:200],
            study=config.study,
            command=provenance.command_line(),
            created=now(),
            device=shared_device(configs, settings.executor),
            settings=settings,
            tracking_uri=resolve_uri(config.tracking.uri),
            trials=trials,
            **parts,
        )
    )


def _trial(number: int, point: int, swept: Point, config: Config, executor: ExecutorSettings) -> Trial:
    config = placed(config, executor)
    return Trial(
        number=number,
        point=point,
        name=shown_name(swept) or config.run_name or "the only trial",
        swept=swept,
        values=to_dict(config),
        fingerprint=trial_fingerprint(config, executor),
    )


def _overrides(point: Point) -> list[str]:
    return [f"{knob}={text}" for knob, text in point.items()]
