"""What rounding does to a training, and what a real change does: both models on MNIST, two epochs.

.venv/bin/python -m experiments.rounding.run            train, then write (7 min)
.venv/bin/python -m experiments.rounding.run --write    write from the runs that are there
"""

import os
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from digitlab.runs import document
from digitlab.runs.pictures import recorded_answers
from digitlab.tracking.names import RECORD_FILE
from digitlab.tracking.stored_run import StoredRun
from experiments import reporting as r

HERE = Path(__file__).parent
STUDY = "rounding"
MODELS = ("logistic_regression", "cnn")
SEEDS = ("0", "1", "2")
BASE = "base"
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
# Name of the run to the knobs that differ from the base, and to what it is called.
CHANGES: dict[str, tuple[list[str], str]] = {
    "again": ([], "the same again"),
    "two_threads": (["threads=2"], "two threads"),
    "avx2": ([], "AVX2 for AVX-512"),
    "portable": (["arithmetic=portable"], "portable arithmetic"),
    "rate_1_percent_off": (["optimizer.learning_rate=0.00101"], "learning rate 1 % off"),
}
OTHER_SEED = "another seed"
TITLES = [title for _, title in CHANGES.values()] + [OTHER_SEED]
FLOOR = 1e-9  # where the figure draws a difference of exactly 0
FIRST = 10  # steps that the verdict looks at; a record holds 30
ALIKE = 1e-5  # what `digitlab reproduce` takes for other rounding, in the first ten steps


def train() -> None:
    for model in MODELS:
        for seed in SEEDS:
            fixed = ["data=mnist", "epochs=2", f"model={model}", f"seed={seed}", f"study={STUDY}"]
            r.digitlab("train", *fixed, f"run_name={BASE}")
            for name, (knobs, _) in CHANGES.items():
                before = dict(os.environ)
                os.environ.update(AVX2 if name == "avx2" else {})
                r.digitlab("train", *fixed, f"run_name={name}", *knobs)
                os.environ.clear()
                os.environ.update(before)


def write() -> None:
    runs = {
        (run.params["model.name"], run.params["seed"], run.params["run_name"]): run
        for run in r.store().finished(STUDY)  # the newest of each
    }
    rows = []
    for model in MODELS:
        for seed in SEEDS:
            base = runs[model, seed, BASE]
            for name, (_, title) in CHANGES.items():
                rows.append(row(base, runs[model, seed, name], title))
            other = SEEDS[(SEEDS.index(seed) + 1) % len(SEEDS)]
            rows.append(row(base, runs[model, other, BASE], OTHER_SEED))
    r.write_csv(HERE / "results.csv", rows)
    read = r.read_csv(HERE / "results.csv")
    (HERE / "table.md").write_text(table(read))
    draw(read)
    r.publish_record(runs["cnn", "0", BASE], HERE / "records" / "cnn.json")


def row(base: StoredRun, changed: StoredRun, title: str) -> dict[str, Any]:
    """How far a run is from its base; accuracies in [0, 1]."""
    first, second = step_losses(base), step_losses(changed)
    relative = [abs(a - b) / abs(a) for a, b in zip(first, second, strict=True)]
    answers = [recorded_answers(r.store(), run).predictions for run in (base, changed)]
    return {
        "model": base.params["model.name"],
        "seed": base.params["seed"],
        "change": title,
        "first_10_losses": f"{max(relative[:FIRST]):.3e}",
        "first_30_losses": f"{max(relative):.3e}",
        "test_accuracy": base.metrics[r.TEST],
        "difference": f"{changed.metrics[r.TEST] - base.metrics[r.TEST]:.4f}",
        "read_differently": int((answers[0] != answers[1]).sum()),
        "base": base.run_id,
        "changed": changed.run_id,
    }


def step_losses(run: StoredRun) -> list[float]:
    """Of the first 30 steps, to the last bit."""
    trace = document.parse(r.store().content(run, RECORD_FILE)).trace
    assert trace is not None, "the run has finished"
    return [float.fromhex(loss) for loss in trace.step_losses]


def table(rows: list[dict[str, str]]) -> str:
    lines = []
    for (model, change), own in r.grouped(rows, "model", "change").items():
        largest = [max(r.shares(own, f"first_{n}_losses")) for n in (10, 30)]
        moved = max(abs(value) for value in r.shares(own, "difference"))
        images = sorted(int(row["read_differently"]) for row in own)
        lines.append(
            [
                model.replace("_", " "),
                change,
                *("0" if value == 0 else f"{value:.0e}" for value in largest),
                f"{100 * moved:.2f}",
                str(images[-1]) if images[0] == images[-1] else f"{images[0]} to {images[-1]}",
            ]
        )
    header = ["model", "change", "first 10 losses", "first 30 losses"]
    header += ["test accuracy, points", "images read differently"]
    return r.markdown(header, lines)


def draw(rows: list[dict[str, str]]) -> None:
    figure = Figure(figsize=(8.4, 4), layout="constrained")
    axes = figure.subplots()
    for number, model in enumerate(MODELS):
        own = [row for row in rows if row["model"] == model]
        places = [TITLES.index(row["change"]) + 0.16 * (2 * number - 1) for row in own]
        style = {"color": r.COLOURS[number], "marker": r.MARKERS[number], "ls": "", "ms": 6}
        title = model.replace("_", " ")
        for steps, filling in (("10", "full"), ("30", "none")):
            values = [max(float(row[f"first_{steps}_losses"]), FLOOR) for row in own]
            label = f"{title}, first {steps} steps"
            axes.plot(values, places, fillstyle=filling, alpha=0.8, label=label, **style)
    axes.axvline(ALIKE, color="#888888", ls="--", lw=1, label="the verdict's limit")
    axes.set_yticks(range(len(TITLES)), TITLES)
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(FLOOR / 2, 3))
    axes.set_xticks([FLOOR, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
    axes.set_xticklabels(["0", *(f"$10^{{{n}}}$" for n in range(-8, 1))])
    axes.set_xlabel("largest relative difference of the step losses (one dot a seed)")
    axes.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    r.save(figure, HERE / "rounding.png")


if __name__ == "__main__":
    r.main(train, write)
