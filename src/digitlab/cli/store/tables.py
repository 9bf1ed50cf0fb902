"""What the terminal shows of runs: their table, and everything of one."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from digitlab.api.reading import VALIDATION, varying_knobs
from digitlab.config.checking import from_param
from digitlab.results.tables import percent, short_title, shortened
from digitlab.text.terminal import console, show_table, styled
from digitlab.tracking import names
from digitlab.tracking.connection.location import file_path
from digitlab.tracking.stored_run import SHORT_ID, StoredRun, age

MAX_KNOBS = 6
MAX_NOTE = 40  # characters
SHOWN = (names.EPOCHS_FILE, names.PER_CLASS_FILE, names.TRACEBACK_FILE)
STATUS_STYLES = {
    "FINISHED": "green",
    "FAILED": "red",
    "KILLED": "yellow",
    "RUNNING": "cyan",
    "PRUNED": "dim",
}


def describe(
    run: StoredRun, sizes: Iterable[tuple[str, int]], contents: Mapping[str, bytes]
) -> dict[str, Any]:
    """Plain values: the run, its artifacts, its epochs and its per-class scores.

    sizes: of all its artifacts. contents: of those of SHOWN that it has.
    """
    # A run that has finished may have failed before, and gone on.
    traceback = contents.get(names.TRACEBACK_FILE) if run.status != "FINISHED" else None
    return {
        **plain(run),
        "artifacts": [{"path": path, "bytes": size} for path, size in sizes],
        "epochs": _rows(contents.get(names.EPOCHS_FILE, b"")),
        "per_class": _rows(contents.get(names.PER_CLASS_FILE, b"")),
        "traceback": traceback.decode() if traceback else None,
    }


def print_run(run: StoredRun, description: dict[str, Any]) -> None:
    out = console(soft_wrap=True)
    name, status = styled(run.name, "bold"), styled(run.state, STATUS_STYLES.get(run.state, ""))
    out.print(name, status, run.run_id, sep="  ")
    took = f", took {(run.end_time - run.start_time) / 1000:.1f} s" if run.end_time else ""
    out.print(f"study {run.study}, started {age(run.start_time)} ago{took}")
    if error := run.tags.get(names.ERROR_TAG):
        out.print(error, style="red")
    if run.state == "KILLED":
        out.print(f"to go on with it: digitlab resume {run.tags.get(names.SWEEP_TAG) or run.short_id}")
    _print_pairs("metrics (last)", {k: f"{v:.6g}" for k, v in sorted(run.metrics.items())})
    _print_pairs("knobs", run.params)
    shown = {
        key: value
        for key, value in sorted(run.tags.items())
        if key.startswith("digitlab.") and not key.startswith(names.PROCESS_TAG)
    }
    _print_pairs("tags", shown)
    if description["per_class"]:
        out.print("per class (test)", style="bold")
        scores = ("precision", "recall", "f1")
        rows = (
            [row["class"], *(percent(float(row[score])) for score in scores), row["support"]]
            for row in description["per_class"]
        )
        show_table(["class", *scores, "support"], rows, right=[*scores, "support"])
    sizes: dict[str, int] = {}
    for artifact in description["artifacts"]:
        top, slash, _ = artifact["path"].partition("/")
        sizes[top + slash] = sizes.get(top + slash, 0) + artifact["bytes"]
    pairs = {path: f"{size:,} bytes" for path, size in sizes.items()}
    _print_pairs(f"artifacts in {file_path(run.artifact_uri) or run.artifact_uri}", pairs)
    if description["traceback"]:
        out.print(description["traceback"])


def _print_pairs(title: str, pairs: dict[str, str]) -> None:
    out = console(soft_wrap=True)
    out.print(title, style="bold")
    width = max(map(len, pairs), default=0)
    for key, value in pairs.items():
        indented = value.strip().replace("\n", "\n" + " " * (width + 4))
        out.print(f"  {key:{width}}  {indented}")


def _rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def print_runs(runs: Sequence[StoredRun]) -> None:
    """One row a run. Groups' own knobs (model.channels_1) follow the more telling ones."""
    knobs = sorted(varying_knobs(runs), key=_how_telling)
    where = _telling_columns(runs)
    scores = ("validation", "test")
    shown = knobs[:MAX_KNOBS]
    titles = ["run", "status", "age", *where, "model", *map(short_title, shown), *scores, ""]
    rows: list[Sequence[Any]] = [
        (
            run.short_id,
            styled(run.state, STATUS_STYLES.get(run.state, "")),
            age(run.start_time),
            *(column[place] for column in where.values()),
            run.params.get("model.name", "-"),
            *(run.params.get(knob, "-") for knob in shown),
            percent(run.metrics.get(VALIDATION.get(run.status, ""))),
            percent(run.metrics.get(names.TEST_ACCURACY)),
            _remark(run),
        )
        for place, run in enumerate(runs)
    ]
    show_table(titles, rows, right=scores, pipe_width=200)
    if len(knobs) > MAX_KNOBS:
        more = ", ".join(knobs[MAX_KNOBS:])
        console(soft_wrap=True).print(f"also varying: {more} (all with --json)", style="dim")


def plain(run: StoredRun) -> dict[str, Any]:
    """As JSON can hold it: knobs as the numbers, booleans and nulls that they are."""
    knobs = {path: from_param(path, text) for path, text in run.params.items()}
    return {**dataclasses.asdict(run), "status": run.state, "params": knobs}


def _telling_columns(runs: Sequence[StoredRun]) -> dict[str, list[str]]:
    """Where the runs stand and how they are called, as far as that tells them apart."""
    columns = {
        "study": [run.study for run in runs],
        "sweep": [run.tags.get(names.SWEEP_TAG, "-") for run in runs],
        "name": [run.name if run.params.get("run_name", "null") != "null" else "-" for run in runs],
    }
    return {title: cells for title, cells in columns.items() if len(set(cells)) > 1}


def _remark(run: StoredRun) -> str:
    if not run.delivered:
        return "not delivered"
    again, note = run.tags.get(names.REPRODUCES_TAG), run.tags.get(names.OWN_NOTE_TAG, "")
    verdict = (
        f"again {again[:SHORT_ID]}: {run.tags.get(names.VERDICT_TAG, 'no verdict')}" if again else ""
    )
    return "; ".join(filter(None, [verdict, shortened(note, MAX_NOTE)]))


def _how_telling(knob: str) -> tuple[int, str]:
    first = ["data.name", "optimizer.name", "optimizer.learning_rate", "batch_size", "epochs", "seed"]
    return (first.index(knob), "") if knob in first else (len(first), "")
