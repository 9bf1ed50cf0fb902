"""What a report says: gathered from the store, drawn into a folder. Knows no HTML and no Markdown."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from digitlab.answers import Answers
from digitlab.comparison import presenting
from digitlab.comparison.choosing import Chosen
from digitlab.comparison.comparing import Comparison
from digitlab.comparison.differences import read_document
from digitlab.comparison.groups import MODEL, SEED, Group, ranked
from digitlab.config import Metric
from digitlab.datafiles import class_names
from digitlab.document import Document
from digitlab.errors import DataError, UsageError
from digitlab.estimates import reads
from digitlab.pictures import recorded_answers, tested_images
from digitlab.sweep import summary
from digitlab.sweep.results import TrialResult
from digitlab.tracking.runs import StoredRun
from digitlab.tracking.store import RunStore

MAX_CURVES = 300  # runs whose learning curves are read: 10 ms each


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One picture or several side by side. width: of one, in CSS pixels: smaller, it cannot be read."""

    files: tuple[str, ...]
    title: str
    caption: str
    width: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """answer: what came out, a sentence each. table: header and rows. missing: what could not be drawn.

    environment: what it was computed with, name to value. reproduce: commands with what they do.
    """

    title: str
    question: str
    answer: list[str]
    commands: list[str]
    table: list[list[str]]
    tested: str
    findings: list[str]
    notes: list[str]
    figures: list[Figure]
    missing: list[str]
    environment: dict[str, str]
    reproduce: list[tuple[str, str]]


def gather(
    store: RunStore, chosen: Chosen, comparison: Comparison, folder: Path, *, question: str | None
) -> Report:
    """Everything but the pages; pictures go into `folder`."""
    best = comparison.groups[0]
    rows = presenting.table_rows(comparison)
    figures, missing = _draw(store, comparison, folder)
    return Report(
        title=f"{chosen.kind.capitalize()} {chosen.name}",
        question=question or _question(comparison),
        answer=_answer(comparison),
        commands=_commands(chosen, comparison),
        table=[list(rows[0]), *(list(row.values()) for row in rows)],
        tested=presenting.question(comparison).removeprefix("Is it real? ")
        if comparison.findings
        else "",
        findings=presenting.sentences(comparison),
        notes=presenting.notes(comparison),
        figures=figures,
        missing=missing,
        environment=_environment(store, comparison, best.runs[0]),
        reproduce=_reproduce(chosen, best),
    )


def as_results(
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
                    seconds=((run.end_time or run.start_time) - run.start_time) / 1000,
                )
            )
    return results


def _have_seeds(groups: Sequence[Group]) -> bool:
    return any(len(group.runs) > 1 for group in groups)


def _question(comparison: Comparison) -> str:
    knobs = list(dict.fromkeys(knob for group in comparison.groups for knob in group.knobs))
    if not knobs:
        return "How good is this configuration?"
    listed = ", ".join(knobs[:-1]) + (" and " if len(knobs) > 1 else "") + knobs[-1]
    return f"What do {listed} do to the accuracy?" if len(knobs) > 1 else f"What does {listed} do?"


def _answer(comparison: Comparison) -> list[str]:
    groups, best = comparison.groups, comparison.groups[0]
    num_runs = sum(len(group.runs) for group in groups)
    test = reads(best.estimate("test/accuracy"), "test/accuracy")
    seeds = f" over {len(best.runs)} seeds" if len(best.runs) > 1 else ""
    lines = [
        f"Of {len(groups)} configurations ({num_runs} runs) {best.label} is the best by "
        f"{comparison.metric}; on the test images it reaches {test}{seeds}."
    ]
    if any(len(group.runs) == 2 for group in groups):
        lines.append("Two seeds each can show next to nothing: the following is weak evidence.")
    unsure = [group.label for group, finding in comparison.findings if not finding.is_real]
    if comparison.findings and not unsure:
        lines.append("Its lead over each of the others on the test images is real.")
    elif unsure:
        shown = "; ".join(unsure[:3]) + (f"; and {len(unsure) - 3} more" if len(unsure) > 3 else "")
        lines.append(f"On the test images there is no evidence that it differs from: {shown}.")
    return lines


def _commands(chosen: Chosen, comparison: Comparison) -> list[str]:
    """The sweep's, or those that made the runs."""
    if chosen.own_run is not None:
        return [chosen.own_run.tags.get("digitlab.command", "")]
    runs = [run for group in comparison.groups for run in group.runs]
    commands = list(dict.fromkeys(run.tags.get("digitlab.command", "") for run in runs))
    return [*commands[:10], *([f"... and {len(commands) - 10} more"] if len(commands) > 10 else [])]


def _draw(store: RunStore, comparison: Comparison, folder: Path) -> tuple[list[Figure], list[str]]:
    """What can be drawn, and a sentence for what cannot."""
    groups = comparison.groups
    figures: list[Figure] = []
    knobs = list(dict.fromkeys(knob for group in groups for knob in group.knobs))
    if knobs and len(groups) > 1:
        from digitlab.reporting.figures import draw_against_knob

        files = [f"against_{knob}.png" for knob in knobs]
        for knob, file in zip(knobs, files, strict=True):
            draw_against_knob(groups, knob, comparison.metric, folder / file)
        over = "mean and 95 % interval over its seeds" if _have_seeds(groups) else "of its one seed"
        caption = (
            f"{comparison.metric} of each configuration, {over}. The lines join the best of each value."
        )
        figures.append(Figure(tuple(files), "Against each knob", caption, 340))
    missing = _draw_sweep(store, comparison, folder, figures)
    by_model: dict[str, Group] = {}
    for group in ranked(groups, comparison.metric):
        by_model.setdefault(group.runs[0].params.get(MODEL, ""), group)
    try:
        _draw_answers(store, by_model, folder, figures)
    except (UsageError, DataError) as error:
        missing.append(f"Confusion matrices and mistakes are not drawn: {error}.")
    return figures, missing


def _draw_sweep(
    store: RunStore, comparison: Comparison, folder: Path, figures: list[Figure]
) -> list[str]:
    """Parallel coordinates and learning curves, which go by validation."""
    metric: Metric = (
        "validation/loss" if comparison.metric == "validation/loss" else "validation/accuracy"
    )
    results = as_results(store, comparison.groups, metric, with_history=MAX_CURVES)
    if not summary.rank(results, metric):
        return ["There is no validation split, by which curves and parallel coordinates go."]
    from digitlab.sweep import figures as drawn

    if summary.varying(results) and len(comparison.groups) > 2:
        drawn.draw_parallel_coordinates(results, metric, folder / "parallel_coordinates.png")
        caption = "One line a configuration, means over seeds; the darkest is the best."
        figures.append(Figure(("parallel_coordinates.png",), "All knobs at once", caption, 640))
    drawn.draw_learning_curves(results, metric, folder / "learning_curves.png")
    caption = "The mean over seeds; the band reaches from the lowest to the highest of them."
    figures.append(Figure(("learning_curves.png",), "Learning curves", caption, 760))
    if len(results) > MAX_CURVES:
        return [f"Learning curves are those of the first {MAX_CURVES} of {len(results)} runs."]
    return []


def _draw_answers(
    store: RunStore, by_model: Mapping[str, Group], folder: Path, figures: list[Figure]
) -> None:
    """A confusion matrix for the best run of each model, and the worst mistakes of the first."""
    from digitlab import plots

    for place, (model, group) in enumerate(by_model.items()):
        run = group.runs[0]
        answers: Answers = recorded_answers(store, run)
        names = class_names(run.params["data.name"])
        file = f"confusion_matrix_{model}.png"
        plots.draw_confusion_matrix(answers, names, folder / file)
        described = f"run {run.short_id}, {group.label}"
        title = f"Confusion matrix: the best {model.replace('_', ' ')}"
        figures.append(Figure((file,), title, f"On the test images; {described}.", 340))
        if place == 0:
            worst = folder / "worst_mistakes.png"
            plots.draw_worst_mistakes(answers, tested_images(run), names, worst)
            caption = f"The wrongly read test images with the largest loss; {described}."
            figures.append(Figure(("worst_mistakes.png",), "Worst mistakes", caption, 640))


def _environment(store: RunStore, comparison: Comparison, best: StoredRun) -> dict[str, str]:
    """Of the best run, and whether the others were made by the same code and on the same machine."""
    runs = [run for group in comparison.groups for run in group.runs]
    found: dict[str, str] = {"runs": str(len(runs))}
    try:
        found |= _of_document(read_document(store, best))
    except UsageError as error:
        found["record"] = str(error)
    tests: list[tuple[str, Callable[[StoredRun], str | None]]] = [
        ("source", lambda run: run.tags.get("digitlab.source")),
        ("host", lambda run: run.tags.get("digitlab.host")),
        ("arithmetic", lambda run: run.tags.get("digitlab.canary")),
    ]
    for name, value in tests:
        kinds = len({value(run) for run in runs})
        if kinds > 1:
            found[f"not all alike: {name}"] = f"{kinds} kinds; `digitlab compare --diff` says more"
    return found


def _of_document(document: Document) -> dict[str, str]:
    code = document.code
    changed = " with uncommitted changes, which the record holds" if code.dirty == "true" else ""
    data = document.config.get("data", {})
    return {
        "code": f"digitlab {code.version}, commit {code.commit[:12]}{changed}",
        "source": code.source[:16],
        "data": f"{data.get('name')}, test images SHA-256 {document.data['test_images'][:16]}",
        "device": f"{document.device}, {document.threads} thread{'s' * (document.threads != 1)}",
        "arithmetic": ", ".join(f"{k} {v}" for k, v in document.arithmetic.items() if v),
        "machine": ", ".join(f"{k} {v}" for k, v in document.machine.items() if k != "host"),
        "versions": ", ".join(f"{k} {v}" for k, v in document.versions.items()),
    }


def _reproduce(chosen: Chosen, best: Group) -> list[tuple[str, str]]:
    again = [
        (f"digitlab reproduce {run.short_id}", f"the best, {run.name}: is the result the same?")
        for run in best.runs[:3]
    ]
    target = best.runs[0].short_id
    if chosen.own_run is not None:
        sweep = chosen.own_run.tags.get("digitlab.sweep", "")
        again.append((f"digitlab compare {sweep}", "this table again"))
    again.append((f"digitlab export {target} best.zip", "all of the best in one file, for elsewhere"))
    return again
