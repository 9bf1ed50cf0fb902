"""What a million trials need, from what one costs: reads measured.json, writes table.md.

.venv/bin/python -m experiments.scale.run
"""

import json
from pathlib import Path
from typing import Any

from digitlab.results.tables import markdown_table

HERE = Path(__file__).parent
TRIALS = 1_000_000
NODES, CORES = 64, 32  # that train, and the cores of each
SERVER_CORES = 16  # of the machine that keeps the runs: MLflow's processes and PostgreSQL
MODELS = {"logistic_regression": "logistic regression", "cnn": "CNN"}


def main() -> None:
    text = table(json.loads((HERE / "measured.json").read_text()))
    (HERE / "table.md").write_text(text)
    print(text)


def table(measured: dict[str, Any]) -> str:
    """Hours that each part of the work keeps its processors busy: the longest decides."""
    header = ("what", "one trial", f"{TRIALS:,} trials", "on", "hours")
    rows = [header, *(_training(measured, model) for model in MODELS)]
    rows.append(_work("composing the manifest", measured["composing_seconds"], 1, "the controller"))
    server = f"{SERVER_CORES} cores"
    rows.append(_work("recording: the server's work", measured["server_seconds"], SERVER_CORES, server))
    for name, told in (("lookup_seconds", "without"), ("indexed_lookup_seconds", "with")):
        few, all_of_them = measured[name]
        growth = (all_of_them - few) / 2  # in the mean, on the way from few runs to all
        rows.append(_work(f"longer lookups, {told} the index", growth, SERVER_CORES, server))
    rows.append(
        _work("listing what has finished, once", measured["listing_seconds"], 1, "the controller")
    )
    for name, told in (("database_bytes", "database"), ("artifact_bytes", "artifacts")):
        size = measured[name]
        rows.append((told, f"{size / 1e3:.0f} kB", f"{size * TRIALS / 1e9:.0f} GB", "disk", ""))
    return markdown_table(rows) + "\n"


def _training(measured: dict[str, Any], model: str) -> tuple[str, ...]:
    seconds = measured["training_core_seconds"][model]
    where = f"{NODES} nodes of {CORES} cores"
    return _work(f"training, {MODELS[model]}", seconds, NODES * CORES, where)


def _work(what: str, core_seconds: float, cores: int, where: str) -> tuple[str, ...]:
    hours = core_seconds * TRIALS / 3600
    one = f"{core_seconds:.1f} s" if core_seconds >= 1 else f"{1000 * core_seconds:.0f} ms"
    return what, one, f"{hours:,.1f} core hours", where, f"{hours / cores:.1f}"


def break_even_seconds(measured: dict[str, Any]) -> float:
    """Core seconds of a trial at which training takes as long as recording."""
    return float(measured["server_seconds"] * NODES * CORES / SERVER_CORES)


if __name__ == "__main__":
    main()
