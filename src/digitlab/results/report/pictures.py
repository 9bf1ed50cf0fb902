"""The pictures of a report, drawn into its folder. Knows neither what it says nor its pages."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from digitlab.config.kinds import Metric
from digitlab.errors import DataError, UsageError
from digitlab.results.compare.compare import Comparison
from digitlab.results.compare.groups import MODEL, SEED, Group, knobs_of, ranked
from digitlab.results.summary import summarise
from digitlab.results.tables import metric_title
from digitlab.results.trial_result import TrialResult
from digitlab.runs.pictures import class_names_of, recorded_answers, tested_images
from digitlab.tracking.names import (
    CURVES_PICTURE,
    MISTAKES_PICTURE,
    PARALLEL_PICTURE,
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
)
from digitlab.tracking.store import RunStore

Put = Callable[..., None]  # takes what draws, its arguments, and the file's name
MAX_CURVES = 300  # runs whose learning curves are read: 10 ms each


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One picture or several side by side. width: of one, in CSS pixels: smaller, it cannot be read."""

    files: tuple[str, ...]
    title: str
    caption: str
    width: int


def draw(
    store: RunStore, comparison: Comparison, folder: Path, *, vector: str | None
) -> tuple[list[Figure], list[str]]:
    """What can be drawn, and a sentence for what cannot. vector: also in this form, `pdf` or `svg`."""
    groups = comparison.groups

    def put(drawing: Callable[..., None], *arguments: Any) -> None:
        *given, file = arguments
        for form in ("png", vector):
            if form:
                drawing(*given, (folder / file).with_suffix(f".{form}"))

    figures: list[Figure] = []
    knobs = knobs_of(groups)
    if knobs and len(groups) > 1:
        from digitlab.results.report.knob_pictures import draw_against_knob

        files = [f"against_{knob}.png" for knob in knobs]
        for knob, file in zip(knobs, files, strict=True):
            put(draw_against_knob, groups, knob, comparison.metric, file)
        caption = f"{metric_title(comparison.metric)} of each configuration."
        figures.append(Figure(tuple(files), "Against each knob", caption, 340))
    missing = _draw_sweep(store, comparison, put, figures)
    by_model: dict[str, Group] = {}
    for group in ranked(groups, comparison.metric):
        by_model.setdefault(group.runs[0].params.get(MODEL, ""), group)
    try:
        _draw_answers(store, by_model, put, figures)
    except (UsageError, DataError) as error:
        missing.append(f"Confusion matrices and mistakes are not drawn: {error}.")
    return figures, missing


def _draw_sweep(store: RunStore, comparison: Comparison, put: Put, figures: list[Figure]) -> list[str]:
    """Parallel coordinates and learning curves, which go by validation."""
    metric: Metric = VALIDATION_LOSS if comparison.metric == VALIDATION_LOSS else VALIDATION_ACCURACY
    results = _as_results(store, comparison.groups, metric, with_history=MAX_CURVES)
    summary = summarise(results, metric)
    if not summary.ranked:
        return ["There is no validation split, by which curves and parallel coordinates go."]
    from digitlab.results import figures as drawn

    if summary.knobs and len(comparison.groups) > 2:
        put(drawn.draw_parallel_coordinates, summary, PARALLEL_PICTURE)
        caption = "One line a configuration, means over seeds; the darkest is the best."
        figures.append(Figure((PARALLEL_PICTURE,), "All knobs at once", caption, 640))
    put(drawn.draw_learning_curves, summary, CURVES_PICTURE)
    caption = f"{metric_title(metric)} by epoch."
    figures.append(Figure((CURVES_PICTURE,), "Learning curves", caption, 760))
    if len(results) > MAX_CURVES:
        return [f"Learning curves are those of the first {MAX_CURVES} of {len(results)} runs."]
    return []


def _draw_answers(
    store: RunStore, by_model: Mapping[str, Group], put: Put, figures: list[Figure]
) -> None:
    """A confusion matrix for the best run of each model, and the worst mistakes of the first."""
    from digitlab.runs import plots

    for place, (model, group) in enumerate(by_model.items()):
        run = group.runs[0]
        answers = recorded_answers(store, run)
        names = class_names_of(store, run)
        file = f"confusion_matrix_{model}.png"
        put(plots.draw_confusion_matrix, answers, names, file)
        described = f"run {run.short_id}, {group.label}"
        title = f"Confusion matrix: the best {model.replace('_', ' ')}"
        figures.append(Figure((file,), title, f"On the test images; {described}.", 340))
        if place == 0:
            put(
                plots.draw_worst_mistakes,
                answers,
                tested_images(run, None),
                names,
                MISTAKES_PICTURE,
            )
            caption = f"The wrongly read test images with the largest loss; {described}."
            figures.append(Figure((MISTAKES_PICTURE,), "Worst mistakes", caption, 640))


def _as_results(
    store: RunStore, groups: Sequence[Group], metric: Metric | None, *, with_history: int
) -> list[TrialResult]:
    """Runs as a sweep's figures take them; with learning curves the first `with_history`."""
    results: list[TrialResult] = []
    for point, group in enumerate(groups):
        for run in group.runs:
            has_curve = metric is not None and metric in run.metrics and len(results) < with_history
            history: dict[str, list[tuple[int, float]]] = {}
            if metric is not None and has_curve:
                history[metric] = store.history(run, metric)
            seed = {SEED: run.params.get(SEED, "")} if len(group.runs) > 1 else {}
            results.append(
                TrialResult(
                    number=len(results),
                    point=point,
                    name=f"{group.label} {f'seed={seed[SEED]}' if seed else ''}".strip(),
                    state="FINISHED",
                    swept=group.knobs | seed,
                    run_id=run.run_id,
                    metrics=run.metrics,
                    history=history,
                    seconds=run.seconds,
                )
            )
    return results
