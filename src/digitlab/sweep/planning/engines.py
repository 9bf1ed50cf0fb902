"""Which trials of a grid are trained side by side by one worker, and which by themselves.

Decides by configurations alone; loads no torch. Whether a chunk is exact on this machine, how it can be
made so and what it gains is found out by the worker that trains it (see training/fused/).
"""

import dataclasses
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from digitlab.config.checking import flatten
from digitlab.sweep.manifest import Trial
from digitlab.sweep.settings import EngineSettings
from digitlab.training.fused.architectures import ARCHITECTURES

# Knobs in which the trials of a chunk may differ. Their order is one more, where that pays.
FREE = (
    *("optimizer.", "scheduler.", "early_stopping.", "checkpoint.weights", "checkpoint.metric"),
    *("seed", "run_name", "record.", "data.order_seed", "model.conv_dropout", "model.hidden_dropout"),
)

SEQUENTIAL, SIDE_BY_SIDE = "sequential", re.compile(r"fused, (\d+) side by side")
OTHER_ORDERS = "each in an order of its own; data.order_seed=0 gives all the same"


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Chunks in the order in which they are to be started; a trial alone is a chunk of one.

    alone: why so many trials are trained by themselves, most frequent first.
    """

    chunks: list[list[Trial]]
    alone: dict[str, int]

    def describe(self) -> str:
        """`2 x 32 trials side by side; 4 one by one (threads is not 1)`."""
        sizes = Counter(len(chunk) for chunk in self.chunks if len(chunk) > 1)
        parts = [f"{count} x {size} trials side by side" for size, count in sizes.items()]
        parts += [f"{count} one by one ({reason})" for reason, count in self.alone.items()]
        return "; ".join(parts)


def engine_tag(num_trials: int) -> str:
    """What a run records of how it was trained: with how many others at once, itself included."""
    return SEQUENTIAL if num_trials == 1 else f"fused, {num_trials} side by side"


def num_side_by_side(tag: str | None) -> int:
    """The same, read again; 1 for a run without the tag."""
    match = SIDE_BY_SIDE.fullmatch(tag or SEQUENTIAL)
    return int(match[1]) if match else 1


def plan_chunks(trials: Sequence[Trial], engine: EngineSettings, workers: int) -> Plan:
    """Trials to be trained by so many workers."""
    alone: Counter[str] = Counter()
    groups: dict[str, list[Trial]] = {}
    chunks: list[list[Trial]] = []
    for trial in trials:
        if reason := _unfit(trial, engine):
            alone[reason] += 1
            chunks.append([trial])
        else:
            any_order = engine.name == "fused" or not ARCHITECTURES[_model(trial)].needs_one_order
            groups.setdefault(_kind(trial, any_order=any_order), []).append(trial)
    in_any_order = Counter(_kind(group[0], any_order=True) for group in groups.values())
    for group in groups.values():
        if len(group) == 1:
            others = in_any_order[_kind(group[0], any_order=True)] > 1
            alone[OTHER_ORDERS if others else "no other trial fits beside it"] += 1
        chunks += _cut(
            sorted(group, key=_order), ARCHITECTURES[_model(group[0])].largest_chunk, workers
        )
    chunks.sort(key=lambda chunk: min(trial.number for trial in chunk))
    return Plan(chunks, dict(alone.most_common()))


def _unfit(trial: Trial, engine: EngineSettings) -> str | None:
    """Why the trial is trained alone, whatever other trials there are; None if it need not be."""
    architecture = ARCHITECTURES.get(_model(trial))
    if engine.name == "sequential":
        return "engine=sequential"
    if architecture is None:
        return f"{_model(trial)} has no form for many at once"
    if trial.values["threads"] != 1:
        return "threads is not 1"
    largest = architecture.largest_batch
    if engine.name == "auto" and trial.values["batch_size"] > largest:
        return f"batches of more than {largest} of a {_model(trial)} take too much memory"
    return None


def _kind(trial: Trial, *, any_order: bool) -> str:
    """Equal for trials that may share a chunk."""
    fixed = {k: v for k, v in flatten(trial.values).items() if not k.startswith(FREE)}
    if not any_order:
        fixed["order"] = _order(trial)
    return json.dumps(fixed, sort_keys=True)


def _order(trial: Trial) -> int:
    """The seed of the order in which it sees the images."""
    values: dict[str, Any] = trial.values
    chosen = values["data"].get("order_seed")
    return int(values["seed"] if chosen is None else chosen)


def _model(trial: Trial) -> str:
    return str(trial.values["model"]["name"])


def _cut(group: list[Trial], largest: int, workers: int) -> list[list[Trial]]:
    """Into chunks of about equal size: for each worker one, if there are two trials for each."""
    count = max(math.ceil(len(group) / largest), min(workers, len(group) // 2), 1)
    bounds = [len(group) * i // count for i in range(count + 1)]
    return [group[a:b] for a, b in itertools.pairwise(bounds)]
