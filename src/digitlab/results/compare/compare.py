"""Runs side by side, and which of their differences are real. Knows no terminal."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from digitlab.errors import UsageError
from digitlab.results.compare.groups import (
    Group,
    default_metric,
    finished_once,
    group_by_seed,
    ranked,
)
from digitlab.results.compare.origins import told_apart
from digitlab.results.compare.significance import (
    Finding,
    compare_predictions,
    compare_seeds,
    corrected,
    untested,
)
from digitlab.results.tables import shortened
from digitlab.runs.artifacts import Answers
from digitlab.runs.pictures import class_names_of, recorded_answers, tested_images
from digitlab.tracking.names import TEST_ACCURACY, TEST_IMAGES_TAG
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import Chosen, StoredRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """groups: sorted by `metric`, best first. findings: of each group against the reference.

    A finding's difference is the group's test accuracy less the reference's.
    """

    groups: list[Group]
    metric: str
    reference: Group
    findings: list[tuple[Group, Finding]]
    notes: list[str]


def compare(
    store: RunStore,
    chosen: Sequence[Chosen],
    *,
    sort: str | None = None,
    against: Chosen | None = None,
) -> Comparison:
    """Runs named one by one each get a row; of sweeps and studies, runs that differ in their seed
    only share one: knobs, code that decides numbers and data are the same.

    against: the run whose row the others are compared with; default: the best.

    Raises:
        UsageError: nothing to compare, or an unknown metric.
    """
    groups, metric, notes = ranked_rows(store, chosen, sort=sort)
    reference = _row_of(against, groups) if against else groups[0]
    others = [group for group in groups if group is not reference]
    findings = corrected(_find(store, reference, others))
    if metric.startswith("test/") and not against and len(groups) > 2:
        notes.append(
            "The first row was picked by its test result, which flatters it: "
            "--sort validation/accuracy picks without looking at the test."
        )
    return Comparison(
        groups=groups,
        metric=metric,
        reference=reference,
        findings=list(zip(others, findings, strict=True)),
        notes=notes,
    )


def ranked_rows(
    store: RunStore, chosen: Sequence[Chosen], *, sort: str | None = None
) -> tuple[list[Group], str, list[str]]:
    """The rows of a comparison, best first, the metric that ranks them, and what was left out.

    Raises:
        UsageError: nothing to compare, or an unknown metric.
    """
    runs, notes = _finished(chosen)
    runs, origins = told_apart(store, runs)
    singly = all(one.kind == "run" for one in chosen)
    if not singly:
        runs, repeated = finished_once(runs)
        notes += repeated
    groups = group_by_seed(runs, each=singly)
    metric = sort or default_metric(groups)
    return ranked(groups, metric), metric, [*notes, *origins]


def draw_disagreements(store: RunStore, comparison: Comparison, file: Path) -> int:
    """The test images that two models read differently; returns how many there are.

    Raises:
        UsageError: there are not two rows, or they were tested on different images.
    """
    if len(comparison.groups) != 2:
        raise UsageError(
            f"--disagreements takes two models, got {len(comparison.groups)} rows: name two runs"
        )
    first, second = (group.runs[0] for group in comparison.groups)
    if first.tags.get(TEST_IMAGES_TAG) != second.tags.get(TEST_IMAGES_TAG):
        raise UsageError("--disagreements: the two runs were tested on different images")
    from digitlab.runs import plots

    if file.suffix not in plots.FORMS:
        raise UsageError(f"--disagreements OUT must end in {', '.join(plots.FORMS)}, got {file}")
    return plots.draw_disagreements(
        recorded_answers(store, first),
        recorded_answers(store, second),
        tested_images(first, None),
        class_names_of(store, first),
        names=(_titled(first), _titled(second)),
        file=file,
    )


def _titled(run: StoredRun) -> str:
    return f"{shortened(run.name, 36)} ({run.short_id})"


def _finished(chosen: Sequence[Chosen]) -> tuple[list[StoredRun], list[str]]:
    runs = [run for one in chosen for run in one.runs]
    finished = list({run.run_id: run for run in runs if run.status == "FINISHED"}.values())
    if not finished:
        states = ", ".join(sorted({run.status for run in runs})) or "no runs"
        raise UsageError(
            f"{' '.join(one.asked for one in chosen)}: nothing has FINISHED there ({states})"
        )
    others = Counter(run.status for run in runs if run.status != "FINISHED")
    counts = ", ".join(f"{count} {state}" for state, count in others.items())
    return finished, [f"Left out: {counts}; only FINISHED runs are compared."] if counts else []


def _row_of(chosen: Chosen, groups: Sequence[Group]) -> Group:
    """The row that holds a run; raises UsageError if none does."""
    run = chosen.runs[0]
    for group in groups:
        if run.run_id in {member.run_id for member in group.runs}:
            return group
    raise UsageError(f"--against {chosen.asked}: that run is not among those compared")


def _find(store: RunStore, reference: Group, others: Sequence[Group]) -> list[Finding]:
    answers: dict[str, Answers] = {}  # read once, though the reference's are needed for each

    def right(group: Group) -> Answers:
        (run,) = group.runs
        if run.run_id not in answers:
            answers[run.run_id] = recorded_answers(store, run)
        return answers[run.run_id]

    findings = []
    for other in others:
        if not _same_test(reference, other):
            findings.append(untested(_difference(other, reference), "tested on different images"))
        elif len(reference.runs) == len(other.runs) == 1:
            findings.append(compare_predictions(right(other).right, right(reference).right))
        else:
            findings.append(compare_seeds(_by_seed(other), _by_seed(reference)))
    return findings


def _same_test(one: Group, other: Group) -> bool:
    return len({run.tags.get(TEST_IMAGES_TAG) for run in (*one.runs, *other.runs)}) == 1


def _by_seed(group: Group) -> dict[str, float]:
    return {seed: run.metrics[TEST_ACCURACY] for seed, run in zip(group.seeds, group.runs, strict=True)}


def _difference(one: Group, other: Group) -> float:
    first, second = one.estimate(TEST_ACCURACY), other.estimate(TEST_ACCURACY)
    assert first is not None, "a finished run has been tested"
    assert second is not None, "a finished run has been tested"
    return first.mean - second.mean
