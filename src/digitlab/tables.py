"""Tables: which columns are worth showing, how values read, as the terminal or Markdown shows them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from digitlab.checking import from_param
from digitlab.terminal import console, show_table, styled
from digitlab.tracking.runs import REPRODUCES, SHORT_ID, VERDICT, StoredRun, age

# Knobs that say where and under which name, not what: never worth a column.
UNINTERESTING = {"run_name", "study", "tracking.uri", "data.root", "device", "model.name"}
MAX_KNOBS = 6
# Of the tested weights, or of the last epoch so far; of a run that was cut short neither means much.
VALIDATION = {"FINISHED": "chosen/validation_accuracy", "RUNNING": "validation/accuracy"}
STATUS_STYLES = {
    "FINISHED": "green",
    "FAILED": "red",
    "KILLED": "yellow",
    "RUNNING": "cyan",
    "PRUNED": "dim",
}


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
            percent(run.metrics.get("test/accuracy")),
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
        "sweep": [run.tags.get("sweep", "-") for run in runs],
        "name": [run.name if run.params.get("run_name", "null") != "null" else "-" for run in runs],
    }
    return {title: cells for title, cells in columns.items() if len(set(cells)) > 1}


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header; without a line's end at its end."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def latex_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header; needs the package booktabs."""
    lines = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    columns = "l" * len(rows[0])
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _latex(text: str) -> str:
    """The text, not what TeX would make of it."""
    signs = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    signs |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"±": r"$\pm$", "…": r"\dots{}"}
    signs |= {"<": r"$<$", ">": r"$>$"}
    return " ".join("".join(signs.get(sign, sign) for sign in text).split())


def _remark(run: StoredRun) -> str:
    if not run.delivered:
        return "not delivered"
    again = run.tags.get(REPRODUCES)
    return f"again {again[:SHORT_ID]}: {run.tags.get(VERDICT, 'no verdict')}" if again else ""


def short_title(knob: str) -> str:
    """The leaf of a knob (`model.name`: the group)."""
    group, _, leaf = knob.partition(".")
    return group if leaf == "name" else leaf or group


def knob_title(knob: str) -> str:
    """For an axis: `learning rate (optimizer)`, `batch size`, `model`."""
    group, _, leaf = knob.partition(".")
    named = short_title(knob).replace("_", " ")
    return f"{named} ({group})" if leaf not in ("", "name") else named


def metric_title(metric: str, *, unit: bool = True) -> str:
    """For an axis: `validation accuracy (%)`, `test loss (nats)`."""
    named = metric.replace("/", " ").replace("_", " ")
    units = {"accuracy": " (%)", "loss": " (nats)"}
    return named + (units.get(metric.rpartition("/")[2], "") if unit else "")


def shortened(text: str, length: int) -> str:
    """Head and tail, for names often differ at their ends."""
    text = " ".join(text.split())
    tail = length // 3
    return text if len(text) <= length else f"{text[: length - tail - 1]}…{text[-tail:]}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _how_telling(knob: str) -> tuple[int, str]:
    first = ["data.name", "optimizer.name", "optimizer.learning_rate", "batch_size", "epochs", "seed"]
    return (first.index(knob), "") if knob in first else (len(first), "")
