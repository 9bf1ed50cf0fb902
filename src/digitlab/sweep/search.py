"""Search by Optuna's ask and tell: a source of trials that learns from those that have ended.

The journal is the truth. After a kill the study is built anew from it, event by event, and every
choice's sampler is seeded by the number of its point: with one worker a search makes the same trials
however often it is cut short. A configuration that was chosen before is replaced by a random new one.
"""

import itertools
import math
import random
import statistics
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from digitlab.randomness import derive_seed
from digitlab.results.trial_result import TrialResult
from digitlab.sweep.ending.stop_rule import StopRule
from digitlab.sweep.finished import OTHERS_UNKNOWN, finished_runs, with_history
from digitlab.sweep.manifest import Manifest, Trial
from digitlab.sweep.planning import axes
from digitlab.sweep.planning.forecast import Reasons
from digitlab.sweep.planning.plan import trial_of_search
from digitlab.sweep.planning.space import Point
from digitlab.sweep.settings import is_maximised
from digitlab.sweep.sweep_folder import SweepFolder
from digitlab.tracking.names import CHOSEN, FINGERPRINT_TAG
from digitlab.tracking.stored_run import StoredRun

FIRST_TRIALS = 5  # that no pruner judges: there is nothing to compare them with
MAX_CANDIDATES = 10_000  # that are looked at for one that is new


class Search:
    """A Source (see workers/source.py). Results of trials that ended earlier are in `results`."""

    def __init__(
        self,
        folder: SweepFolder,
        manifest: Manifest,
        *,
        say: Callable[[str], None],
        num_workers: int = 1,
        stop_rule: StopRule | None = None,
    ) -> None:
        self._folder, self._manifest, self._say = folder, manifest, say
        self._settings = manifest.settings.sweep
        self._num_workers, self._stop_rule = num_workers, stop_rule or StopRule()
        self._study = _new_study(manifest)
        self._distributions = {k: _distribution(axis) for k, axis in manifest.axes.items()}
        self._has_conditions = any(base.lacks for base in manifest.bases)
        self._asked: dict[int, Any] = {}  # Optuna's trial of each point
        self._results: dict[int, TrialResult] = {}
        self._waiting: deque[Trial] = deque()
        self._known: dict[str, StoredRun] = {}
        self._chosen: set[str] = set()  # fingerprints of points
        self._num_trials = num_trials(folder, manifest)
        self._numbers: set[int] = set()  # of points, lost ones of a damaged journal included
        self._replay()
        finished = finished_runs(manifest.study, manifest.tracking_uri)
        self._known = {run.tags[FINGERPRINT_TAG]: run for run in finished.runs}
        self._reasons: Reasons | None = Reasons(manifest, finished.runs)  # until it has given one
        if finished.unanswered:
            say(f"{finished.unanswered}: {OTHERS_UNKNOWN}")

    @property
    def results(self) -> list[TrialResult]:
        return [self._results[number] for number in sorted(self._results)]

    @property
    def num_left(self) -> int:
        return self._num_trials - len(self._results)

    def withdraw(self, number: int) -> Trial | None:
        """A trial that waits to be started, which it then does no more; None if it does not."""
        trial = next((trial for trial in self._waiting if trial.number == number), None)
        if trial:
            self._waiting.remove(trial)
        return trial

    def take(self) -> list[Trial]:
        while not self._stop_rule.reason():
            if not self._waiting:
                if len(self._asked) * self._settings.repeats >= self._num_trials:
                    return []
                self._waiting.extend(self._ask())
                continue
            trial = self._waiting.popleft()
            run = self._known.get(trial.fingerprint)
            if run is None:
                if self._reasons and (reason := self._reasons.why_again([trial])):
                    self._say(reason)
                    self._reasons = None
                return [trial]
            result = with_history(trial, run, self._manifest)
            self._folder.log("ended", died=False, **result.to_json())
            self.ended(result)
        return []

    def after_epoch(self, number: int, epoch: int, metrics: dict[str, float]) -> str | None:
        if self._settings.pruner == "none":
            return None
        trial, metric = self._asked[number // self._settings.repeats], self._settings.metric
        trial.report(metrics[metric], epoch)
        if not trial.should_prune():
            return None
        return f"{metric} {metrics[metric]:.4f} falls behind (sweep.pruner={self._settings.pruner})"

    def ended(self, result: TrialResult) -> None:
        self._results[result.number] = result
        self._stop_rule.note(result)
        repeats = self._settings.repeats
        numbers = range(result.point * repeats, (result.point + 1) * repeats)
        if all(number in self._results for number in numbers):
            _tell(
                self._study,
                self._asked[result.point],
                [self._results[number] for number in numbers],
                self._settings.metric,
            )

    def _ask(self) -> list[Trial]:
        """The trials of a new point, written down before any can start; none if all were made."""
        number = max(self._numbers, default=-1) + 1
        params = self._choose(number)
        replaces = not self._is_new(params)
        if replaces:
            self._give_up(number)
            other = self._new_point(number)
            if other is None:
                self._end(number)
                return []
            params = self._choose(number, fixed=other)
        self._folder.log("asked", point=number, params=params, replaces=replaces)
        return self._trials(number, params)

    def _is_new(self, params: Point) -> bool:
        return _trials_of(self._manifest, 0, params)[0].fingerprint not in self._chosen

    def _new_point(self, number: int) -> Point | None:
        """At random, of those that were not chosen yet."""
        dice = random.Random(derive_seed(self._settings.seed, "new point", number))
        for space in self._spaces(dice):
            shuffled = [dice.sample(texts, len(texts)) for texts in space.values()]
            candidates = itertools.islice(itertools.product(*shuffled), MAX_CANDIDATES)
            points = (dict(zip(space, candidate, strict=True)) for candidate in candidates)
            if point := next(filter(self._is_new, points), None):
                return point
        return None

    def _spaces(self, dice: random.Random) -> Iterator[dict[str, list[str]]]:
        """What a point is made of: one space, or for each choice of groups the knobs that it has."""
        everything = {knob: axes.texts(axis) for knob, axis in self._manifest.axes.items()}
        if not self._has_conditions:
            yield everything
            return
        for base in dice.sample(self._manifest.bases, len(self._manifest.bases)):
            known = {knob: texts for knob, texts in everything.items() if knob not in base.lacks}
            yield known | {knob: [text] for knob, text in base.groups.items()}

    def _give_up(self, number: int) -> None:
        """Optuna learns nothing from what it chose again."""
        from optuna.trial import TrialState

        self._study.tell(self._asked.pop(number), state=TrialState.FAIL)

    def _end(self, num_points: int) -> None:
        total = num_points * self._settings.repeats
        self._folder.log("used up", trials=total)
        self._say(
            f"the search ends after {total} of {self._num_trials} trials: "
            "every configuration that it can choose has had its turn"
        )
        self._num_trials = total

    def _trials(self, number: int, params: Point) -> list[Trial]:
        trials = _trials_of(self._manifest, number, params)
        self._chosen.add(trials[0].fingerprint)
        return trials

    def _choose(self, number: int, fixed: Point | None = None) -> Point:
        self._study.sampler = _sampler(self._settings, number, self._num_workers)
        if fixed is not None:
            self._study.enqueue_trial(
                {k: axes.chosen(self._manifest.axes[k], text) for k, text in fixed.items()}
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental samplers say so every time
            trial = self._suggested()
        self._asked[number] = trial
        self._numbers.add(number)
        chosen = trial.params
        return {knob: str(chosen[knob]) for knob in self._manifest.axes if knob in chosen}

    def _suggested(self) -> Any:
        """Optuna's trial with all that a point chooses: first the groups, if they decide what else."""
        if not self._has_conditions:
            return self._study.ask(self._distributions)
        groups = self._manifest.bases[0].groups
        trial = self._study.ask({knob: self._distributions[knob] for knob in groups})
        base = self._manifest.base_of(trial.params)
        for knob, axis in self._manifest.axes.items():
            if knob not in groups and knob not in base.lacks:
                _suggest(trial, knob, axis)
        return trial

    def _replay(self) -> None:
        """Ask and tell again what the journal says, in its order; find what is left to do."""
        asked: dict[int, Point] = {}
        for event in self._folder.events():
            if "number" in event:
                self._numbers.add(event["number"] // self._settings.repeats)
            if event["event"] == "asked":
                asked[event["point"]] = event["params"]
                self._choose_again(event)
            elif event["event"] == "ended" and event["state"] != "INTERRUPTED":
                result = TrialResult.from_json(event)
                if result.point not in self._asked:
                    continue  # that line of the journal is lost
                trial = self._asked[result.point]
                if self._settings.pruner != "none":
                    for epoch, value in result.history.get(self._settings.metric, []):
                        trial.report(value, epoch)
                self.ended(result)
        for point, params in asked.items():
            trials = self._trials(point, params)
            self._waiting.extend(trial for trial in trials if trial.number not in self._results)

    def _choose_again(self, event: dict[str, Any]) -> None:
        if event.get("replaces"):
            self._choose(event["point"])
            self._give_up(event["point"])
        elif self._settings.search == "cmaes":  # which keeps its state in its choices
            self._choose(event["point"])
            return
        self._choose(event["point"], fixed=event["params"])


def num_trials(folder: SweepFolder, manifest: Manifest) -> int:
    """That the sweep will have made at its end, if no target is reached before."""
    used_up = (event["trials"] for event in folder.events() if event["event"] == "used up")
    return next(used_up, manifest.num_trials)


def num_needed(folder: SweepFolder, manifest: Manifest) -> int:
    """That the sweep has at its end: where it has reached its target, those that had ended then."""
    reached = [event["trials"] for event in folder.events() if event["event"] == "reached"]
    return reached[-1] if reached else num_trials(folder, manifest)


def trials_made(folder: SweepFolder, manifest: Manifest) -> Iterator[Trial]:
    """All trials of a search so far."""
    for event in folder.events():
        if event["event"] == "asked":
            yield from _trials_of(manifest, event["point"], event["params"])


def _trials_of(manifest: Manifest, point: int, params: Point) -> list[Trial]:
    """params: exactly as Optuna chose them; the trials have six digits of them, for people to read."""
    chosen = {knob: axes.readable(manifest.axes[knob], text) for knob, text in params.items()}
    repeats = manifest.settings.sweep.repeats
    return [trial_of_search(manifest, point * repeats + r, point, chosen, r) for r in range(repeats)]


def _new_study(manifest: Manifest) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name=manifest.id,  # Hyperband draws a trial's bracket from it
        direction="maximize" if is_maximised(manifest.settings.sweep.metric) else "minimize",
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
    if axes.is_integer(axis):
        return IntDistribution(axis["low"], axis["high"], log=axis["log"])
    return FloatDistribution(axis["low"], axis["high"], log=axis["log"])


def _suggest(trial: Any, knob: str, axis: axes.Axis) -> None:
    if "choices" in axis:
        trial.suggest_categorical(knob, axis["choices"])
    elif axes.is_integer(axis):
        trial.suggest_int(knob, axis["low"], axis["high"], log=axis["log"])
    else:
        trial.suggest_float(knob, axis["low"], axis["high"], log=axis["log"])


def _tell(study: Any, trial: Any, results: list[TrialResult], metric: str) -> None:
    """The mean over a point's seeds; one that failed, or is not a number, makes the point a failure."""
    from optuna.trial import TrialState

    values = [result.metrics.get(CHOSEN[metric], math.nan) for result in results]
    if any(result.state == "PRUNED" for result in results):
        study.tell(trial, state=TrialState.PRUNED)
    elif all(result.state == "FINISHED" for result in results) and all(map(math.isfinite, values)):
        study.tell(trial, statistics.fmean(values))
    else:
        study.tell(trial, state=TrialState.FAIL)
