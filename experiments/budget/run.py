"""How far each model gets in so many epochs, and in so many seconds: the best presets on MNIST.

    .venv/bin/python -m experiments.budget.run            train what is missing, then write (9 min)
    .venv/bin/python -m experiments.budget.run --write    write from the runs that are there

One run after the other on one thread, so that seconds mean something: leave the machine alone.
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from digitlab.tracking.stored_run import StoredRun
from experiments import reporting as r

HERE = Path(__file__).parent
STUDY = "budget"
PRESETS = {"logistic_best": "1,5,20,100", "cnn_best": "1,5,20"}


def train() -> None:
    for preset, epochs in PRESETS.items():
        knobs = [f"experiment={preset}", f"epochs={epochs}", "seed=range(3)"]
        alone = ["workers=1", "engine=sequential", f"study={STUDY}", "run_name=null"]
        r.digitlab("sweep", *knobs, *alone)


def write() -> None:
    runs = [run for run in r.finished(STUDY) if run.tags.get("digitlab.engine") == "sequential"]
    runs.sort(key=lambda run: (run.params["model.name"] == "cnn", epochs_of(run), run.params["seed"]))
    r.write_csv(HERE / "results.csv", [row(run) for run in runs])
    read = r.read_csv(HERE / "results.csv")
    (HERE / "table.md").write_text(table(read))
    draw(read)
    by_place = {(run.params["model.name"], epochs_of(run), run.params["seed"]): run for run in runs}
    for model, epochs in (("logistic_regression", 20), ("cnn", 1)):
        r.publish_record(
            by_place[model, epochs, "0"], HERE / "records" / f"{model}_{epochs}_epochs.json"
        )


def epochs_of(run: StoredRun) -> int:
    return int(run.params["epochs"])


def row(run: StoredRun) -> dict[str, Any]:
    """seconds: of the epochs, with their validation; without loading and the test."""
    seconds = sum(value for _, value in r.store().history(run, "time/epoch_seconds"))
    return {
        "model": run.params["model.name"],
        "epochs": run.params["epochs"],
        "seed": run.params["seed"],
        "seconds": f"{seconds:.2f}",
        "validation_accuracy": run.metrics[r.VALIDATION],
        "test_accuracy": run.metrics[r.TEST],
        "run": run.run_id,
    }


def table(rows: list[dict[str, str]]) -> str:
    lines = []
    for (model, epochs), own in r.grouped(rows, "model", "epochs").items():
        seconds = r.shares(own, "seconds")
        test = r.mean_interval(r.shares(own, "test_accuracy"))
        lines.append([model.replace("_", " "), epochs, f"{r.mean(seconds):.1f}", f"{test} %"])
    return r.markdown(["model", "epochs", "seconds of training", "test accuracy"], lines)


def draw(rows: list[dict[str, str]]) -> None:
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, ((model,), own) in enumerate(r.grouped(rows, "model").items()):
        points = []
        for (epochs,), runs in r.grouped(own, "epochs").items():
            errors = [100 * (1 - value) for value in r.shares(runs, "test_accuracy")]
            x, y = r.mean(r.shares(runs, "seconds")), r.mean(errors)
            points.append((x, y))
            low, high = y - min(errors), max(errors) - y
            axes.errorbar(x, y, [[low], [high]], color=r.COLOURS[number], capsize=3)
            label = f"{epochs} epoch{'s' * (epochs != '1')}"
            axes.annotate(label, (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8)
        style = {
            "color": r.COLOURS[number],
            "marker": r.MARKERS[number],
            "label": model.replace("_", " "),
        }
        axes.plot(*zip(*points, strict=True), **style)
    axes.set(xscale="log", yscale="log", xlabel="seconds of training, one thread")
    axes.set(ylabel="test error (%): mean and range of 3 seeds")
    axes.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    axes.set_xticks([0.1, 0.3, 1, 3, 10, 30, 100], ["0.1", "0.3", "1", "3", "10", "30", "100"])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.12)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="center left")
    r.save(figure, HERE / "budget.png")


if __name__ == "__main__":
    r.main(train, write)
