"""Runs that differ in their seed only, as one row. Knows no store and nothing of significance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from digitlab.config.fingerprint import WITHOUT_EFFECT
from digitlab.errors import UsageError
from digitlab.results.estimates import Estimate, estimate
from digitlab.results.tables import UNINTERESTING, short_title
from digitlab.tracking import names
from digitlab.tracking.stored_run import StoredRun

SEED, MODEL = "seed", "model.name"
# Metrics of the tested weights, by the name that people sort by; whether more is better.
METRICS = {
    names.VALIDATION_ACCURACY: (names.CHOSEN_ACCURACY, True),
    names.VALIDATION_LOSS: (names.CHOSEN_LOSS, False),
    names.TEST_ACCURACY: (names.TEST_ACCURACY, True),
    names.TEST_LOSS: (names.TEST_LOSS, False),
    names.CALIBRATION_ERROR: (names.CALIBRATION_ERROR, False),
}
_IRRELEVANT = (UNINTERESTING | set(WITHOUT_EFFECT)) - {MODEL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """runs: at least one, by seed. knobs: that differ among the groups compared, with their values."""

    runs: tuple[StoredRun, ...]
    knobs: dict[str, str]

    @property
    def label(self) -> str:
        """What tells it from the others: `cnn lr=0.01`."""
        parts = [v if k == MODEL else f"{short_title(k)}={v}" for k, v in self.knobs.items()]
        return " ".join(parts) or self.runs[0].name

    @property
    def seeds(self) -> list[str]:
        return [run.params.get(SEED, "") for run in self.runs]

    def values(self, metric: str) -> list[float | None]:
        """A metric of METRICS, of each run; None where it has none."""
        return [run.metrics.get(METRICS[metric][0]) for run in self.runs]

    def estimate(self, metric: str) -> Estimate | None:
        return estimate(self.values(metric))


def knobs_of(groups: Iterable[Group]) -> list[str]:
    """Those that differ, in the order in which they were met."""
    return list(dict.fromkeys(knob for group in groups for knob in group.knobs))


def group_by_seed(runs: Sequence[StoredRun], *, each: bool = False) -> list[Group]:
    """In the order of the runs. each: every run is a group of its own."""
    members: dict[tuple[str, ...], list[StoredRun]] = {}
    for run in runs:
        key = (run.run_id,) if each else point(run)
        members.setdefault(key, []).append(run)
    knobs = differing_knobs(runs, with_seed=each)
    return [
        Group(
            runs=tuple(sorted(alike, key=lambda run: int(run.params.get(SEED, "0")))),
            knobs={knob: alike[0].params[knob] for knob in knobs if knob in alike[0].params},
        )
        for alike in members.values()
    ]


def point(run: StoredRun) -> tuple[str, ...]:
    """All that decides a run's result but its seed, and what origins.told_apart makes a knob."""
    knobs: Mapping[str, str] = {k: v for k, v in run.params.items() if k not in _IRRELEVANT | {SEED}}
    return (*(f"{k}={knobs[k]}" for k in sorted(knobs)), run.tags.get(names.TEST_IMAGES_TAG, ""))


def finished_once(runs: Iterable[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """Each result once, oldest first; and how many were left out, as a line, if any.

    Of runs alike in seed and all that decides the result (of other code or rounding, what
    origins.told_apart says), the newest that is no reproduction of another: counted twice, they would
    pretend to more seeds than there are.
    """
    originals_last = sorted(
        runs, key=lambda run: (names.REPRODUCES_TAG not in run.tags, run.start_time)
    )
    once = {(*point(run), run.params.get(SEED, "")): run for run in originals_last}
    repeated = len(originals_last) - len(once)
    note = (
        f"Left out: {repeated} run{'s' * (repeated != 1)} with the seed, knobs, code and rounding of "
        "another, as `digitlab reproduce` makes them: no further seeds."
    )
    return sorted(once.values(), key=lambda run: run.start_time), [note] if repeated else []


def differing_knobs(runs: Sequence[StoredRun], *, with_seed: bool) -> list[str]:
    """What decides results and differs among the runs, or is missing in some; in the schema's order.

    A knob that only some models have counts where it differs among those that have it: the model's
    name says the rest.
    """
    seen: dict[str, set[str]] = {}
    for run in runs:
        for knob, value in run.params.items():
            seen.setdefault(knob, set()).add(value)
    ignored = _IRRELEVANT if with_seed else _IRRELEVANT | {SEED}
    return [knob for knob, values in seen.items() if len(values) > 1 and knob not in ignored]


def ranked(groups: Sequence[Group], metric: str) -> list[Group]:
    """Best mean first; those without the metric last.

    Raises:
        UsageError: there is no such metric.
    """
    if metric not in METRICS:
        raise UsageError(f"a metric is one of {', '.join(METRICS)}, got {metric}")
    sign = -1 if METRICS[metric][1] else 1

    def place(group: Group) -> tuple[bool, float]:
        score = group.estimate(metric)
        return score is None, sign * score.mean if score else 0.0

    return sorted(groups, key=place)


def best(groups: Sequence[Group], metric: str) -> list[Group]:
    """Those with the best mean; more than one where they tie."""
    means = {id(g): score.mean for g in groups if (score := g.estimate(metric))}
    if not means:
        return []
    best_mean = max(means.values()) if METRICS[metric][1] else min(means.values())
    return [group for group in groups if means.get(id(group)) == best_mean]


def default_metric(groups: Sequence[Group]) -> str:
    """By validation, as everything is chosen, where any of them has one."""
    has_validation = any(group.estimate(names.VALIDATION_ACCURACY) for group in groups)
    return names.VALIDATION_ACCURACY if has_validation else names.TEST_ACCURACY
