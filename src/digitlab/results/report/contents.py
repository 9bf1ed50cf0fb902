"""What a report says, gathered from the store. Knows no HTML and no Markdown."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from digitlab.errors import UsageError
from digitlab.results.compare import wording
from digitlab.results.compare.compare import Comparison
from digitlab.results.compare.differences import read_document
from digitlab.results.compare.groups import Group, knobs_of
from digitlab.results.compare.significance import LEVEL, STRONG, Finding
from digitlab.results.estimates import reads
from digitlab.results.report.pictures import Figure, draw
from digitlab.runs.document import Document
from digitlab.tracking.names import CANARY_TAG, COMMAND_TAG, HOST_TAG, PARENT_SWEEP_TAG, TEST_ACCURACY
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import Chosen, StoredRun

# Tags that should be the same in all runs of a report; other code is a row of its own.
ALIKE = {"host": HOST_TAG, "arithmetic": CANARY_TAG}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """answer: what came out, a sentence each. table: header and rows. missing: what could not be drawn.

    tested: what the findings are about. environment: what it was computed with, name to value.
    reproduce: commands with what they do.
    """

    title: str
    question: str
    answer: list[str]
    commands: list[str]
    table: list[list[str]]
    legend: str
    tested: str
    findings: list[str]
    notes: list[str]
    figures: list[Figure]
    missing: list[str]
    environment: dict[str, str]
    reproduce: list[tuple[str, str]]


def gather(
    store: RunStore,
    chosen: Chosen,
    comparison: Comparison,
    folder: Path,
    *,
    question: str | None,
    vector: str | None,
) -> Report:
    """Everything but the pages; pictures go into `folder`. vector: their second form, if any."""
    best = comparison.groups[0]
    rows = wording.table_rows(comparison)
    figures, missing = draw(store, comparison, folder, vector=vector)
    return Report(
        title=f"{chosen.kind.capitalize()} {chosen.name}",
        question=question or _question(comparison),
        answer=_answer(comparison),
        commands=_commands(chosen, comparison),
        table=[list(rows[0]), *(list(row.values()) for row in rows)],
        legend=wording.legend(comparison),
        tested=wording.question(comparison).removeprefix("Is it real? ") if comparison.findings else "",
        findings=wording.sentences(comparison),
        notes=wording.notes(comparison),
        figures=figures,
        missing=missing,
        environment=_environment(store, comparison, best.runs[0]),
        reproduce=_reproduce(chosen, best),
    )


def _question(comparison: Comparison) -> str:
    knobs = knobs_of(comparison.groups)
    if not knobs:
        return "How good is this configuration?"
    listed = ", ".join(knobs[:-1]) + (" and " if len(knobs) > 1 else "") + knobs[-1]
    return f"What do {listed} do to the accuracy?" if len(knobs) > 1 else f"What does {listed} do?"


def _answer(comparison: Comparison) -> list[str]:
    groups, best = comparison.groups, comparison.groups[0]
    num_runs = sum(len(group.runs) for group in groups)
    test = reads(best.estimate(TEST_ACCURACY), TEST_ACCURACY)
    seeds = f" over {len(best.runs)} seeds" if len(best.runs) > 1 else ""
    lines = [
        f"Of {len(groups)} configurations ({num_runs} runs) {best.label} is the best by "
        f"{comparison.metric}; on the test images it reaches {test}{seeds}."
    ]
    if any(len(group.runs) == 2 for group in groups):
        lines.append("Two seeds each can show next to nothing: the following is weak evidence.")
    return lines + leads(comparison.findings)


def leads(findings: Sequence[tuple[Group, Finding]]) -> list[str]:
    """What the tests say of the first row against the others, a sentence for each standing."""
    by_standing: dict[str, list[str]] = {}
    for group, finding in findings:
        by_standing.setdefault(_standing(finding), []).append(group.label)
    lines = []
    for standing, labels in by_standing.items():
        more = f"; and {len(labels) - 3} more" if len(labels) > 3 else ""
        others = (
            "each of the others" if len(labels) == len(findings) > 1 else "; ".join(labels[:3]) + more
        )
        lines.append(f"On the test images {standing.replace('OTHERS', others)}.")
    return lines


def _standing(finding: Finding) -> str:
    """Of the first row: a finding's difference is the other's result less the first row's."""
    place = "ahead of" if finding.difference < 0 else "behind"
    match finding.evidence:
        case "real":
            return f"it is really {place} OTHERS (corrected p < {STRONG})"
        case "some":
            return f"there is some evidence that it is {place} OTHERS (corrected p < {LEVEL})"
        case _:
            return "there is no evidence that it differs from OTHERS"


def _commands(chosen: Chosen, comparison: Comparison) -> list[str]:
    """The sweep's, or those that made the runs."""
    if chosen.own_run is not None:
        return [chosen.own_run.tags.get(COMMAND_TAG, "")]
    runs = [run for group in comparison.groups for run in group.runs]
    commands = list(dict.fromkeys(run.tags.get(COMMAND_TAG, "") for run in runs))
    return [*commands[:10], *([f"... and {len(commands) - 10} more"] if len(commands) > 10 else [])]


def _environment(store: RunStore, comparison: Comparison, best: StoredRun) -> dict[str, str]:
    """Of the best run, and whether the others were made on the same machine."""
    runs = [run for group in comparison.groups for run in group.runs]
    about: dict[str, str] = {"runs": str(len(runs))}
    try:
        about |= _of_document(read_document(store, best))
    except UsageError as error:
        about["record"] = str(error)
    for name, tag in ALIKE.items():
        kinds = len({run.tags.get(tag) for run in runs})
        if kinds > 1:
            about[f"not all alike: {name}"] = f"{kinds} kinds; `digitlab compare --diff` says more"
    return about


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
        sweep = chosen.own_run.tags.get(PARENT_SWEEP_TAG, "")
        again.append((f"digitlab compare {sweep}", "this table again"))
    again.append((f"digitlab export {target} best.zip", "all of the best in one file, for elsewhere"))
    return again
