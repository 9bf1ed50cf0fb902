"""Search by Optuna's ask and tell: a source of trials that learns from those that have ended.

The journal is the truth. After a kill the study is built anew from it, event by event, and every
choice's sampler is seeded by the number of its point: with one worker a search makes the same trials
however often it is cut short.
"""

import dataclasses
import math
import statistics
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

from digitlab.randomness import derive_seed
from digitlab.sweep.finished import finished_runs, with_history
from digitlab.sweep.manifest import Manifest, SweepFolder, Trial
from digitlab.sweep.own_run import merit
from digitlab.sweep.planning import trial_of_search
from digitlab.sweep.results import TrialResult
from digitlab.sweep.space import Point
from digitlab.tracking.runs import StoredRun
from digitlab.tracking.store import FINGERPRINT_TAG

FIRST_TRIALS = 5  # that no pruner judges: there is nothing to compare them with


class Search:
    """A Source (see runner.py). Results of trials that ended earlier are in `results`."""

    def __init__(self, folder: SweepFolder, manifest: Manifest, *, num_workers: int = 1) -> None:
        self._folder, self._manifest = folder, manifest
        self._settings = manifest.settings.sweep
        self._num_workers = num_workers
        self._study = _new_study(manifest)
        self._distributions = {k: _distribution(axis) for k, axis in manifest.axes.items()}
        self._asked: list[Any] = []  # Optuna's trial of each point
        self._ended: dict[int, TrialResult] = {}
        self._waiting: deque[Trial] = deque()
        self._known: dict[str, StoredRun] = {}
        self._replay()
        runs = finished_runs(manifest.study, manifest.tracking_uri)
        self._known = {run.tags[FINGERPRINT_TAG]: run for run in runs}

    @property
    def results(self) -> list[TrialResult]:
        return [self._ended[number] for number in sorted(self._ended)]

    @property
    def num_left(self) -> int:
        return self._manifest.num_trials - len(self._ended)

    def take(self) -> list[Trial]:
        while True:
            if not self._waiting:
                if len(self._asked) >= (self._settings.trials or 0):
                    return []
                self._waiting.extend(self._ask())
            trial = self._waiting.popleft()
            run = self._known.get(trial.fingerprint)
            if run is None:
                return [trial]
            result = with_history(trial, run, self._manifest)
            self._folder.log("ended", died=False, **result.to_json())
            self.told(result)

    def heard(self, number: int, epoch: int, metrics: dict[str, float]) -> str | None:
        if self._settings.pruner == "none":
            return None
        trial, metric = self._asked[number // self._settings.repeats], self._settings.metric
        trial.report(metrics[metric], epoch)
        if not trial.should_prune():
            return None
        return f"{metric} {metrics[metric]:.4f} falls behind (sweep.pruner={self._settings.pruner})"

    def told(self, result: TrialResult) -> None:
        self._ended[result.number] = result
        repeats = self._settings.repeats
        numbers = range(result.point * repeats, (result.point + 1) * repeats)
        if all(number in self._ended for number in numbers):
            _tell(
                self._study,
                self._asked[result.point],
                [self._ended[number] for number in numbers],
                self._settings.metric,
            )

    def _ask(self) -> list[Trial]:
        """The trials of a new point, written down before any of them can start."""
        number = len(self._asked)
        params = self._choose(number)
        self._folder.log("asked", point=number, params=params)
        return _trials_of(self._manifest, number, params)

    def _choose(self, number: int, fixed: Point | None = None) -> Point:
        self._study.sampler = _sampler(self._settings, number, self._num_workers)
        if (
            fixed is not None and self._settings.search != "cmaes"
        ):  # which keeps its state in its choices
            self._study.enqueue_trial({k: _parsed(self._manifest.axes[k], v) for k, v in fixed.items()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental samplers say so every time
            trial = self._study.ask(self._distributions)
        self._asked.append(trial)
        return {knob: str(trial.params[knob]) for knob in self._manifest.axes}

    def _replay(self) -> None:
        """Ask and tell again what the journal says, in its order; find what is left to do."""
        asked: dict[int, Point] = {}
        for event in self._folder.events():
            if event["event"] == "asked":
                asked[event["point"]] = event["params"]
                self._choose(event["point"], fixed=event["params"])
            elif event["event"] == "ended" and event["state"] != "INTERRUPTED":
                result = _result(event)
                trial = self._asked[result.point]
                if self._settings.pruner != "none":
                    for epoch, value in result.history.get(self._settings.metric, []):
                        trial.report(value, epoch)
                self.told(result)
        for point, params in asked.items():
            trials = _trials_of(self._manifest, point, params)
            self._waiting.extend(trial for trial in trials if trial.number not in self._ended)


def trials_made(folder: SweepFolder, manifest: Manifest) -> Iterator[Trial]:
    """All trials of a search so far."""
    for event in folder.events():
        if event["event"] == "asked":
            yield from _trials_of(manifest, event["point"], event["params"])


def _trials_of(manifest: Manifest, point: int, params: Point) -> list[Trial]:
    """params: exactly as Optuna chose them; the trials have six digits of them, for people to read."""
    chosen = {knob: _readable(manifest.axes[knob], text) for knob, text in params.items()}
    repeats = manifest.settings.sweep.repeats
    return [trial_of_search(manifest, point * repeats + r, point, chosen, r) for r in range(repeats)]


def _result(event: dict[str, Any]) -> TrialResult:
    names = {field.name for field in dataclasses.fields(TrialResult)}
    return TrialResult(**{name: value for name, value in event.items() if name in names})


def _new_study(manifest: Manifest) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    is_share = manifest.settings.sweep.metric.endswith("accuracy")
    return optuna.create_study(
        study_name=manifest.id,  # Hyperband draws a trial's bracket from it
        direction="maximize" if is_share else "minimize",
        pruner=_pruner(manifest),
    )


def _sampler(settings: Any, number: int, num_workers: int) -> Any:
    """A new sampler for each point: a sampler that is seeded once repeats its choices on resuming."""
    from optuna import samplers

    seed = derive_seed(settings.seed, "search", number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match settings.search:
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "tpe":
                return samplers.TPESampler(seed=seed, constant_liar=num_workers > 1)
            case "gp":
                return samplers.GPSampler(seed=seed)
            case _:
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _pruner(manifest: Manifest) -> Any:
    from optuna import pruners

    epochs = max(base.values["epochs"] for base in manifest.bases)
    if "epochs" in manifest.axes:
        axis = manifest.axes["epochs"]
        epochs = max(axis["values"]) if "choices" in axis else axis["high"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match manifest.settings.sweep.pruner:
            case "median":
                return pruners.MedianPruner(n_startup_trials=FIRST_TRIALS)
            case "asha":
                return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
            case "hyperband":
                return pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
            case _:
                return pruners.NopPruner()


def _distribution(axis: dict[str, Any]) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if "choices" in axis:
        return CategoricalDistribution(axis["choices"])
    if isinstance(axis["low"], int) and isinstance(axis["high"], int):
        return IntDistribution(axis["low"], axis["high"], log=axis["log"])
    return FloatDistribution(axis["low"], axis["high"], log=axis["log"])


def _readable(axis: dict[str, Any], text: str) -> str:
    value = _parsed(axis, text)
    if not isinstance(value, float):
        return text
    return repr(min(max(float(f"{value:.6g}"), axis["low"]), axis["high"]))


def _parsed(axis: dict[str, Any], text: str) -> Any:
    if "choices" in axis:
        return text
    is_integer = isinstance(axis["low"], int) and isinstance(axis["high"], int)
    return int(text) if is_integer else float(text)


def _tell(study: Any, trial: Any, results: list[TrialResult], metric: str) -> None:
    """The mean over a point's seeds; one that failed, or is not a number, makes the point a failure."""
    from optuna.trial import TrialState

    values = [result.metrics.get(merit(metric), math.nan) for result in results]
    if any(result.state == "PRUNED" for result in results):
        study.tell(trial, state=TrialState.PRUNED)
    elif all(result.state == "FINISHED" for result in results) and all(map(math.isfinite, values)):
        study.tell(trial, statistics.fmean(values))
    else:
        study.tell(trial, state=TrialState.FAIL)
