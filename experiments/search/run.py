"""Grid, random search and TPE with pruning at equal cost: logistic regression on MNIST, three knobs.

.venv/bin/python -m experiments.search.run            search what is missing, then write (12 min)
.venv/bin/python -m experiments.search.run --write    write from the runs that are there
"""

import csv
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from digitlab.tracking.names import TRIALS_FILE
from digitlab.tracking.stored_run import StoredRun
from experiments import reporting as r

HERE = Path(__file__).parent
STUDY = "search"
SEEDS = 5
EPOCHS = 5  # of a trial that is not given up
BUDGET = 27 * EPOCHS  # trained epochs: what the grid costs
TITLES = {"grid": "grid of 3 x 3 x 3", "random": "random", "tpe": "TPE, median pruning"}
SPACE = [
    "optimizer.learning_rate=tag(log,interval(1e-5,1))",
    "batch_size=tag(log,int(interval(10,1000)))",
    "optimizer.weight_decay=tag(log,interval(1e-7,1e-1))",
]
GRID = [
    "optimizer.learning_rate=1e-5,3.2e-3,1",
    "batch_size=10,100,1000",
    "optimizer.weight_decay=1e-7,1e-4,1e-1",
]
SEARCHES = {
    "grid": GRID,
    "random": [*SPACE, "sweep.search=random", "sweep.trials=27"],
    "tpe": [*SPACE, "sweep.search=tpe", "sweep.trials=60", "sweep.pruner=median"],
}


def train() -> None:
    fixed = ["data=mnist", "model=logistic_regression", "optimizer=adam", f"epochs={EPOCHS}"]
    for seed in range(SEEDS):
        for search, knobs in SEARCHES.items():
            # One worker: with several, what a search knows when it chooses is a matter of timing.
            own = [*knobs, f"seed={seed}", "executor=inprocess", f"study={STUDY}"]
            chosen = [] if search == "grid" else [f"sweep.seed={seed}"]
            r.digitlab("sweep", *fixed, *own, *chosen)


def write() -> None:
    by_id = {run.run_id: run for run in r.store().all_runs(STUDY)}
    rows = []
    for own_run in by_id.values():
        if "digitlab.sweep" in own_run.tags:
            # Its own list: a trial that another search had run already stands in it, too.
            for trial in trials_of(own_run):
                run = by_id[trial["run_id"]]
                rows.append(row(run, own_run.params["sweep.search"], int(trial["number"])))
    order = list(TITLES)
    rows.sort(key=lambda row: (order.index(row["search"]), int(row["seed"]), row["trial"]))
    r.write_csv(HERE / "results.csv", rows)
    read = r.read_csv(HERE / "results.csv")
    (HERE / "table.md").write_text(table(read))
    draw(read)
    best = max(
        (winner(own) for own in by_repetition(read).values()),
        key=lambda row: float(row["validation_accuracy"]),
    )
    r.publish_record(by_id[best["run"]], HERE / "records" / "best.json")


def trials_of(own_run: StoredRun) -> list[dict[str, str]]:
    content = r.store().content(own_run, TRIALS_FILE).decode()
    return list(csv.DictReader(content.splitlines()))


def row(run: StoredRun, search: str, number: int) -> dict[str, Any]:
    pruned = run.tags.get("digitlab.pruned.epoch")
    return {
        "search": search,
        "seed": run.params["seed"],
        "trial": number,
        "epochs": int(pruned or EPOCHS),
        "learning_rate": f"{float(run.params['optimizer.learning_rate']):g}",
        "batch_size": run.params["batch_size"],
        "weight_decay": f"{float(run.params['optimizer.weight_decay']):g}",
        "validation_accuracy": "" if pruned else run.metrics[r.VALIDATION],
        "test_accuracy": "" if pruned else run.metrics[r.TEST],
        "run": run.run_id,
    }


def by_repetition(rows: list[dict[str, str]]) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """The trials of each search and seed, in their order, as far as the budget reaches."""
    found = {}
    for key, own in r.grouped(rows, "search", "seed").items():
        costs = [sum(int(one["epochs"]) for one in own[: n + 1]) for n in range(len(own))]
        found[key] = [one for one, cost in zip(own, costs, strict=True) if cost <= BUDGET]
    return found


def winner(rows: list[dict[str, str]]) -> dict[str, str]:
    finished = [row for row in rows if row["validation_accuracy"]]
    return max(finished, key=lambda row: float(row["validation_accuracy"]))


def table(rows: list[dict[str, str]]) -> str:
    lines = []
    repetitions = by_repetition(rows)
    for search, title in TITLES.items():
        own = [trials for (name, _), trials in repetitions.items() if name == search]
        best = [winner(trials) for trials in own]
        given_up = sum(not row["validation_accuracy"] for trials in own for row in trials)
        lines.append(
            [
                title,
                f"{sum(map(len, own)) / len(own):.0f}",
                f"{given_up / len(own):.0f}",
                f"{r.mean_interval(r.shares(best, 'validation_accuracy'))} %",
                f"{r.mean_interval(r.shares(best, 'test_accuracy'))} %",
            ]
        )
    header = ["search", "trials", "given up", "best by validation: validation", "its test accuracy"]
    return r.markdown(header, lines)


def best_so_far(rows: list[dict[str, str]]) -> list[float]:
    """The best validation accuracy (%) after each trained epoch, from 0 on; NaN before the first."""
    found, cost = [float("nan")] * (BUDGET + 1), 0
    for row in rows:
        cost += int(row["epochs"])
        if row["validation_accuracy"]:
            value = 100 * float(row["validation_accuracy"])
            found[cost:] = [value if not old >= value else old for old in found[cost:]]
    return found


def draw(rows: list[dict[str, str]]) -> None:
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (search, title) in enumerate(TITLES.items()):
        own = [best_so_far(t) for (name, _), t in by_repetition(rows).items() if name == search]
        columns = [sorted(column) for column in zip(*own, strict=True)]
        known = [n for n, column in enumerate(columns) if all(value == value for value in column)]
        middle = [columns[n][len(own) // 2] for n in known]
        low, high = [columns[n][0] for n in known], [columns[n][-1] for n in known]
        colour = r.COLOURS[number]
        axes.step(known, middle, where="post", color=colour, label=title)
        axes.fill_between(known, low, high, step="post", color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="cost: trained epochs", ylabel="best validation accuracy so far (%)")
    axes.set(xlim=(0, BUDGET), ylim=(86, 93), title=f"median and range of {SEEDS} repetitions")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    r.save(figure, HERE / "search.png")


if __name__ == "__main__":
    r.main(train, write)
