"""What the terminal shows of runs: their table, and everything of one."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from digitlab.config.checking import from_param
from digitlab.results.tables import UNINTERESTING, percent, short_title
from digitlab.text.terminal import console, show_table, styled
from digitlab.tracking import names
from digitlab.tracking.connection.location import file_path
from digitlab.tracking.run_folder import RunFolder
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import SHORT_ID, StoredRun, age, undelivered

MAX_KNOBS = 6
# Of the tested weights, or of the last epoch so far; of a run that was cut short neither means much.
VALIDATION = {"FINISHED": names.CHOSEN_ACCURACY, "RUNNING": names.VALIDATION_ACCURACY}
STATUS_STYLES = {
    "FINISHED": "green",
    "FAILED": "red",
    "KILLED": "yellow",
    "RUNNING": "cyan",
    "PRUNED": "dim",
}


def describe(store: RunStore, run: StoredRun, scratch: Path) -> dict[str, Any]:
    """Plain values: the run, its artifacts, its epochs and its per-class scores."""
    artifacts = store.artifacts(run)
    there = [path for path, _ in artifacts]
    tables = {
        name.removesuffix(".csv"): _read_csv(store.download(run, name, scratch))
        for name in (names.EPOCHS_FILE, names.PER_CLASS_FILE)
        if name in there
    }
    traceback = None
    has_failed = run.status != "FINISHED"  # not: failed once, and was gone on with
    if has_failed and names.TRACEBACK_FILE in there:
        traceback = store.download(run, names.TRACEBACK_FILE, scratch).read_text()
    return {
        **plain(run),
        "artifacts": [{"path": path, "bytes": size} for path, size in artifacts],
        "epochs": tables.get("metrics", []),
        "per_class": tables.get("per_class", []),
        "traceback": traceback,
    }


def describe_record(record: RunFolder) -> dict[str, Any]:
    """The same of a run that no store has yet."""
    files = [file for file in sorted(record.artifacts.rglob("*")) if file.is_file()]
    per_class, epochs = record.artifacts / names.PER_CLASS_FILE, record.artifacts / names.EPOCHS_FILE
    traceback = record.artifacts / names.TRACEBACK_FILE
    return {
        **plain(undelivered(record)),
        "artifacts": [
            {"path": str(file.relative_to(record.artifacts)), "bytes": file.stat().st_size}
            for file in files
        ],
        "epochs": _read_csv(epochs) if epochs.exists() else [],
        "per_class": _read_csv(per_class) if per_class.exists() else [],
        "traceback": traceback.read_text() if traceback.exists() else None,
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
        table = Table(title="per class (test)", title_justify="left", box=None, pad_edge=False)
        for column in description["per_class"][0]:
            table.add_column(column, justify="left" if column == "class" else "right")
        for row in description["per_class"]:
            scores = [percent(float(row[c])) for c in ("precision", "recall", "f1")]
            table.add_row(row["class"], *scores, row["support"])
        out.print(table)
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


def _read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def varying_knobs(runs: Sequence[StoredRun]) -> list[str]:
    """The knobs that differ among the runs that have them, in the schema's order."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for knob, value in run.params.items():
            seen.setdefault(knob, set()).add(value)
    return [knob for knob, values in seen.items() if len(values) > 1 and knob not in UNINTERESTING]


def print_runs(runs: Sequence[StoredRun]) -> None:
    """One row a run. Groups' own knobs (model.channels_1) follow the more telling ones."""
    knobs = sorted(varying_knobs(runs), key=_how_telling)
    where = _telling_columns(runs)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("run", "status", "age", *where, "model", *map(short_title, knobs[:MAX_KNOBS])):
        table.add_column(title, overflow="fold")
    table.add_column("validation", justify="right")
    table.add_column("test", justify="right")
    table.add_column("", overflow="fold")
    for place, run in enumerate(runs):
        table.add_row(
            run.short_id,
            styled(run.state, STATUS_STYLES.get(run.state, "")),
            age(run.start_time),
            *(column[place] for column in where.values()),
            run.params.get("model.name", "-"),
            *(run.params.get(knob, "-") for knob in knobs[:MAX_KNOBS]),
            percent(run.metrics.get(VALIDATION.get(run.status, ""))),
            percent(run.metrics.get(names.TEST_ACCURACY)),
            _remark(run),
        )
    show_table(table, pipe_width=200)
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
    again = run.tags.get(names.REPRODUCES_TAG)
    return f"again {again[:SHORT_ID]}: {run.tags.get(names.VERDICT_TAG, 'no verdict')}" if again else ""


def _how_telling(knob: str) -> tuple[int, str]:
    first = ["data.name", "optimizer.name", "optimizer.learning_rate", "batch_size", "epochs", "seed"]
    return (first.index(knob), "") if knob in first else (len(first), "")
