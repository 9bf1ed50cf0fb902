"""What the experiments share: reading a study's runs, tables, a style of figures, published records.

Each experiment is a module, `python -m experiments.NAME.run`: it trains what is missing, through the
`digitlab` command, then writes results.csv, table.md, a figure and records/ beside itself; with --write
it only writes. The study in the tracking store has the experiment's name unless it says otherwise.
"""

import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from digitlab.results.compare.groups import finished_once
from digitlab.results.estimates import estimate
from digitlab.results.tables import markdown_table
from digitlab.runs import document
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.names import RECORD_FILE
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun

# Okabe and Ito's colours, told apart with any colour vision; each with a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
UNNAMED_HOST = "unnamed"
VALIDATION, TEST = "chosen/validation_accuracy", "test/accuracy"


def main(train: Callable[[], None], write: Callable[[], None]) -> None:
    if "--write" not in sys.argv:
        train()
    write()


def digitlab(*arguments: str) -> None:
    """Run the command line; ends this process with its exit code if it fails (3: no MNIST here)."""
    done = subprocess.run([sys.executable, "-m", "digitlab.cli", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def store() -> RunStore:
    return RunStore(resolve_uri(None))


def finished(study: str) -> list[StoredRun]:
    """A study's finished runs, each result once; ends this process if there are none."""
    runs, _ = finished_once(store().finished(study))
    if not runs:
        sys.exit(f"no finished runs in the study {study!r}: run this without --write first")
    return runs


def mean_interval(values: Iterable[float]) -> str:
    """Of accuracies in [0, 1]: `97.22 ± 0.31`, in percent, with the 95 % t-interval."""
    found = estimate(values)
    assert found is not None, "there is at least one run"
    half = "" if found.half_width is None else f" ± {100 * found.half_width:.2f}"
    return f"{100 * found.mean:.2f}{half}"


def write_csv(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def grouped(
    rows: Iterable[dict[str, str]], *columns: str
) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """Rows that are alike in some columns, in their order."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def shares(rows: Iterable[dict[str, str]], column: str) -> list[float]:
    return [float(row[column]) for row in rows]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return markdown_table([header, *rows]) + "\n"


def save(figure: Figure, file: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def publish_record(run: StoredRun, file: Path) -> None:
    """The run's record.json, for `digitlab reproduce FILE`."""
    publish(document.parse(store().content(run, RECORD_FILE)), file)


def publish(found: document.Document, file: Path) -> None:
    """Write a record without the name of the machine and of places on it."""
    config = {
        k: {**v, **document.LOCAL.get(k, {})} if isinstance(v, dict) else v
        for k, v in found.config.items()
    }
    found = dataclasses.replace(found, config=config, config_sha256=document.config_digest(config))
    machine = {**found.machine, "host": UNNAMED_HOST}
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        json.dumps(dataclasses.asdict(dataclasses.replace(found, machine=machine)), indent=1)
    )
