"""Train the four presets with several seeds on MNIST, then write the table and the figure.

    .venv/bin/python experiments/tutorial/run.py            train what is missing, then write (11 min)
    .venv/bin/python experiments/tutorial/run.py --write    write from the runs that are there

Reads and writes the study `tutorial` of the project's tracking store.
"""

import csv
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from digitlab.checking import as_param, flatten
from digitlab.composition import compose
from digitlab.tracking.location import recorded_values, resolve_uri
from digitlab.tracking.runs import StoredRun
from digitlab.tracking.store import RunStore

HERE = Path(__file__).parent
STUDY = "tutorial"
SEEDS = {
    "tutorial_as_described": 8,
    "tutorial_as_written": 3,
    "logistic_best": 3,
    "cnn_best": 3,
}
CLAIMED = 0.91


def main() -> None:
    if "--write" not in sys.argv:
        train_missing()
    found = {
        preset: [run for _, run in sorted(by_seed.items())] for preset, by_seed in finished().items()
    }
    write_csv(found)
    write_table(found)
    draw(found)


def finished() -> dict[str, dict[int, StoredRun]]:
    """The newest finished run of each preset and seed."""
    store = RunStore(resolve_uri(None))
    found: dict[str, dict[int, StoredRun]] = {preset: {} for preset in SEEDS}
    if store.experiment_id(STUDY) is None:
        return found
    for run in store.runs(STUDY):
        preset, seed = run.name.replace(" ", "_"), int(run.params["seed"])
        wanted = preset in found and seed < SEEDS[preset]
        if wanted and run.status == "FINISHED" and is_as_configured(run, preset):
            found[preset].setdefault(seed, run)
    return found


def is_as_configured(run: StoredRun, preset: str) -> bool:
    """Whether nothing but the seed was changed from the preset: not the data, not the epochs."""
    expected = flatten(recorded_values(compose([f"experiment={preset}", f"seed={run.params['seed']}"])))
    irrelevant = {"tracking.uri", "data.root", "device"}
    return all(
        run.params.get(path) == as_param(value)
        for path, value in expected.items()
        if path not in irrelevant
    )


def train_missing() -> None:
    command = Path(sys.executable).with_name("digitlab")
    there = finished()
    for preset, num_seeds in SEEDS.items():
        for seed in range(num_seeds):
            if seed not in there[preset]:
                subprocess.run([command, "train", f"experiment={preset}", f"seed={seed}"], check=True)


def write_csv(found: dict[str, list[StoredRun]]) -> None:
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["preset", "seed", "test_accuracy", "test_loss", "training_seconds"])
        for preset, runs in found.items():
            for run in runs:
                seconds = run.metrics["time/epoch_seconds"] * int(run.params["epochs"])
                scores = [run.metrics["test/accuracy"], f"{run.metrics['test/loss']:.5f}"]
                writer.writerow([preset, run.params["seed"], *scores, f"{seconds:.1f}"])


def write_table(found: dict[str, list[StoredRun]]) -> None:
    """Markdown: mean, 95 % interval of the mean (Student's t), smallest, largest, n."""
    rows = [
        "| command | model | test accuracy, mean ± 95 % | min | max | n |",
        "|---|---|---|---|---|---|",
    ]
    for preset, runs in found.items():
        values = [100 * run.metrics["test/accuracy"] for run in runs]
        half = stats.t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
        model = runs[0].params["model.name"].replace("_", " ")
        rows.append(
            f"| `digitlab train experiment={preset}` | {model} | **{mean(values):.2f} %** ± {half:.2f} "
            f"| {min(values):.2f} | {max(values):.2f} | {len(values)} |"
        )
    (HERE / "table.md").write_text("\n".join(rows) + "\n")


def draw(found: dict[str, list[StoredRun]]) -> None:
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.subplots()
    for row, (_preset, runs) in enumerate(found.items()):
        values = [100 * run.metrics["test/accuracy"] for run in runs]
        axes.plot(values, [row] * len(values), "o", color="#0072B2", alpha=0.6, markersize=7)
        axes.text(mean(values), row - 0.3, f"{mean(values):.2f} %", ha="center", fontsize=9)
    axes.axvline(100 * CLAIMED, color="#D55E00", linestyle="--", label='the tutorial\'s "91 percent"')
    axes.set_yticks(range(len(found)), [preset.replace("_", " ") for preset in found])
    axes.set_ylim(len(found) - 0.5, -0.7)
    axes.set(xlabel="test accuracy on MNIST (%), one dot a seed")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    FigureCanvasAgg(figure)
    figure.savefig(HERE / "accuracy.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
