"""Everything recorded of one run, for `digitlab show`."""

import csv
from pathlib import Path
from typing import Any

from rich.table import Table

from digitlab.record import Record
from digitlab.tables import STATUS_STYLES, percent, plain
from digitlab.terminal import console, styled
from digitlab.tracking.location import file_path
from digitlab.tracking.runs import StoredRun, age, undelivered
from digitlab.tracking.store import RunStore


def describe(store: RunStore, run: StoredRun, scratch: Path) -> dict[str, Any]:
    """Plain values: the run, its artifacts, its epochs and its per-class scores."""
    artifacts = store.artifacts(run)
    names = [path for path, _ in artifacts]
    tables = {
        name.removesuffix(".csv"): _read_csv(store.download(run, name, scratch))
        for name in ("metrics.csv", "per_class.csv")
        if name in names
    }
    traceback = None
    if "traceback.txt" in names and run.status != "FINISHED":  # it failed once, and was gone on with
        traceback = store.download(run, "traceback.txt", scratch).read_text()
    return {
        **plain(run),
        "artifacts": [{"path": path, "bytes": size} for path, size in artifacts],
        "epochs": tables.get("metrics", []),
        "per_class": tables.get("per_class", []),
        "traceback": traceback,
    }


def describe_record(record: Record) -> dict[str, Any]:
    """The same of a run that no store has yet."""
    files = [file for file in sorted(record.artifacts.rglob("*")) if file.is_file()]
    per_class, epochs = record.artifacts / "per_class.csv", record.artifacts / "metrics.csv"
    traceback = record.artifacts / "traceback.txt"
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
    if error := run.tags.get("digitlab.error"):
        out.print(error, style="red")
    if run.state == "KILLED":
        out.print(f"to go on with it: digitlab resume {run.tags.get('sweep') or run.short_id}")
    _print_pairs("metrics (last)", {k: f"{v:.6g}" for k, v in sorted(run.metrics.items())})
    _print_pairs("knobs", run.params)
    shown = {
        key: value
        for key, value in sorted(run.tags.items())
        if key.startswith("digitlab.") and not key.startswith("digitlab.process.")
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
