"""The tutorial's recipe on MNIST: as described, as written, at other batch sizes and rates, bettered.

    .venv/bin/python -m experiments.tutorial.run            train what is missing, then write (7 min)
    .venv/bin/python -m experiments.tutorial.run --write    write from the runs that are there

Reads and writes the studies `tutorial` and `batch_sizes` of the project's tracking store.
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from digitlab.config.checking import as_param, flatten, to_dict
from digitlab.config.composition import compose
from digitlab.config.fingerprint import WITHOUT_EFFECT
from digitlab.tracking.stored_run import StoredRun
from experiments import reporting as r

HERE = Path(__file__).parent
STUDY, BATCH_STUDY = "tutorial", "batch_sizes"
SEEDS = {
    "tutorial_as_described": 8,
    "tutorial_as_written": 3,
    "logistic_best": 3,
    "cnn_best": 3,
}
BATCH_SIZES = ("1", "10", "100", "1000")
RATES = "1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1,3e-1,1"
TUTORIALS_RATE = "0.001"
CLAIMED = 0.91


def train() -> None:
    for preset, num_seeds in SEEDS.items():
        r.digitlab("sweep", f"experiment={preset}", f"seed=range({num_seeds})")
    knobs = [f"batch_size={','.join(BATCH_SIZES)}", f"optimizer.learning_rate={RATES}", "seed=range(3)"]
    base = ["experiment=tutorial_as_described", "data.validation_size=5000"]
    r.digitlab("sweep", *base, f"study={BATCH_STUDY}", "run_name=null", *knobs)


def write() -> None:
    runs = [run for run in r.finished(STUDY) if preset_of(run)]
    order = list(SEEDS)
    runs.sort(key=lambda run: (order.index(preset_of(run) or ""), int(run.params["seed"])))
    r.write_csv(HERE / "results.csv", [preset_row(run) for run in runs])
    batches = sorted(r.finished(BATCH_STUDY), key=place)
    r.write_csv(HERE / "batch_sizes.csv", [batch_row(run) for run in batches])
    (HERE / "table.md").write_text(table(r.read_csv(HERE / "results.csv")))
    rows = r.read_csv(HERE / "batch_sizes.csv")
    (HERE / "batch_sizes.md").write_text(batch_table(rows))
    draw(r.read_csv(HERE / "results.csv"))
    draw_batches(rows)
    for run in runs:
        if run.params["seed"] == "0":
            r.publish_record(run, HERE / "records" / f"{preset_of(run)}.json")


def preset_of(run: StoredRun) -> str | None:
    """The preset from which nothing but the seed was changed."""
    for preset, num_seeds in SEEDS.items():
        if int(run.params["seed"]) < num_seeds:
            overrides = [f"experiment={preset}", f"seed={run.params['seed']}"]
            expected = flatten(to_dict(compose(overrides)))
            decisive = {k: as_param(v) for k, v in expected.items() if k not in WITHOUT_EFFECT}
            if all(run.params.get(knob) == value for knob, value in decisive.items()):
                return preset
    return None


def preset_row(run: StoredRun) -> dict[str, Any]:
    return {
        "preset": preset_of(run),
        "model": run.params["model.name"],
        "seed": run.params["seed"],
        "test_accuracy": run.metrics[r.TEST],
        "test_loss": f"{run.metrics['test/loss']:.5f}",
        "run": run.run_id,
    }


def batch_row(run: StoredRun) -> dict[str, Any]:
    return {
        "batch_size": run.params["batch_size"],
        "learning_rate": f"{float(run.params['optimizer.learning_rate']):g}",
        "seed": run.params["seed"],
        "validation_accuracy": run.metrics[r.VALIDATION],
        "test_accuracy": run.metrics[r.TEST],
        "run": run.run_id,
    }


def place(run: StoredRun) -> tuple[int, float, int]:
    knobs = run.params
    return int(knobs["batch_size"]), float(knobs["optimizer.learning_rate"]), int(knobs["seed"])


def table(rows: list[dict[str, str]]) -> str:
    lines = []
    for (preset,), own in r.grouped(rows, "preset").items():
        values = r.shares(own, "test_accuracy")
        mean, _, half = r.mean_interval(values).partition(" ± ")
        lines.append(
            [
                f"`digitlab train experiment={preset}`",
                own[0]["model"].replace("_", " "),
                f"**{mean} %** ± {half}",
                f"{100 * min(values):.2f}",
                f"{100 * max(values):.2f}",
                str(len(values)),
            ]
        )
    return r.markdown(["command", "model", "test accuracy, mean ± 95 %", "min", "max", "n"], lines)


def best_of(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The runs at the learning rate with the best mean validation accuracy."""
    by_rate = r.grouped(rows, "learning_rate").values()
    return max(by_rate, key=lambda own: r.mean(r.shares(own, "validation_accuracy")))


def batch_table(rows: list[dict[str, str]]) -> str:
    lines = []
    for (size,), own in r.grouped(rows, "batch_size").items():
        at_tutorials = [row for row in own if row["learning_rate"] == TUTORIALS_RATE]
        best = best_of(own)
        lines.append(
            [
                size,
                f"{55_000 // int(size) * 5:,}",
                f"{r.mean_interval(r.shares(at_tutorials, 'test_accuracy'))} %",
                best[0]["learning_rate"],
                f"{r.mean_interval(r.shares(best, 'test_accuracy'))} %",
            ]
        )
    header = ["batch size", "steps", f"test, rate {TUTORIALS_RATE}", "best rate", "test, best rate"]
    return r.markdown(header, lines)


def draw(rows: list[dict[str, str]]) -> None:
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.subplots()
    presets = r.grouped(rows, "preset")
    for row, own in enumerate(presets.values()):
        values = [100 * value for value in r.shares(own, "test_accuracy")]
        axes.plot(values, [row] * len(values), "o", color=r.COLOURS[0], alpha=0.6, markersize=7)
        axes.text(r.mean(values), row - 0.3, f"{r.mean(values):.2f} %", ha="center", fontsize=9)
    label = 'the tutorial\'s "91 percent"'
    axes.axvline(100 * CLAIMED, color=r.COLOURS[1], linestyle="--", label=label)
    axes.set_yticks(range(len(presets)), [preset.replace("_", " ") for (preset,) in presets])
    axes.set_ylim(len(presets) - 0.5, -0.7)
    axes.set(xlabel="test accuracy on MNIST (%), one dot a seed")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    r.save(figure, HERE / "accuracy.png")


def draw_batches(rows: list[dict[str, str]]) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for number, ((size,), own) in enumerate(r.grouped(rows, "batch_size").items()):
        by_rate = r.grouped(own, "learning_rate")
        means = [100 * r.mean(r.shares(runs, "validation_accuracy")) for runs in by_rate.values()]
        style = {"color": r.COLOURS[number], "marker": r.MARKERS[number], "ms": 5}
        axes.plot([float(rate) for (rate,) in by_rate], means, label=f"batches of {size}", **style)
    axes.axvline(float(TUTORIALS_RATE), color="#888888", lw=1, ls="--", label="the tutorial's rate")
    axes.axhline(100 * CLAIMED, color="#888888", lw=1, ls=":", label='"91 percent"')
    axes.set(xscale="log", ylim=(60, 94), xlabel="learning rate", ylabel="validation accuracy (%)")
    axes.set(title="logistic regression, SGD, 5 epochs, raw pixels; means of 3 seeds")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    r.save(figure, HERE / "batch_sizes.png")


if __name__ == "__main__":
    r.main(train, write)
