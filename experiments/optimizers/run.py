"""Five optimizers on both models over a log grid of learning rates, on MNIST.

.venv/bin/python -m experiments.optimizers.run            train what is missing, then write (11 min)
.venv/bin/python -m experiments.optimizers.run --write    write from the runs that are there
"""

from pathlib import Path

from matplotlib.figure import Figure

from experiments import reporting as r

HERE = Path(__file__).parent
STUDY = "optimizers"
GOOD = 0.01  # below the best validation accuracy of its optimizer: nearly as good
EPOCHS = {"logistic_regression": 5, "cnn": 2}
RATES = {
    "logistic_regression": "1e-5,3e-5,1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1,3e-1,1,3,10",
    "cnn": "1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1,3e-1,1",
}
TITLES = {"sgd": "SGD", "momentum": "SGD with momentum 0.9", "adam": "Adam", "adamw": "AdamW"}
TITLES |= {"rmsprop": "RMSprop"}


def train() -> None:
    for model, epochs in EPOCHS.items():
        rates = f"optimizer.learning_rate={RATES[model]}"
        knobs = [f"model={model}", f"epochs={epochs}", rates, "seed=range(3)"]
        r.digitlab("sweep", "sweep=optimizers", f"study={STUDY}", "data=mnist", *knobs)


def write() -> None:
    runs = r.finished(STUDY)
    rows = []
    for run in runs:
        is_heavy = float(run.params.get("optimizer.momentum", 0)) > 0
        optimizer = run.params["optimizer.name"]
        rows.append(
            {
                "model": run.params["model.name"],
                "optimizer": "momentum" if optimizer == "sgd" and is_heavy else optimizer,
                "learning_rate": f"{float(run.params['optimizer.learning_rate']):g}",
                "seed": run.params["seed"],
                "validation_accuracy": run.metrics[r.VALIDATION],
                "test_accuracy": run.metrics[r.TEST],
                "run": run.run_id,
            }
        )
    order = list(TITLES)
    rows.sort(
        key=lambda row: (
            row["model"],
            order.index(row["optimizer"]),
            float(row["learning_rate"]),
            row["seed"],
        )
    )
    r.write_csv(HERE / "results.csv", rows)
    read = r.read_csv(HERE / "results.csv")
    (HERE / "table.md").write_text(table(read))
    draw(read)
    by_id = {run.run_id: run for run in runs}
    for model in EPOCHS:
        best = max(
            best_rates(read, model).values(), key=lambda rows: r.mean(r.shares(rows, VALIDATION))
        )
        r.publish_record(by_id[best[0]["run"]], HERE / "records" / f"{model}.json")


VALIDATION = "validation_accuracy"


def best_rates(rows: list[dict[str, str]], model: str) -> dict[str, list[dict[str, str]]]:
    """For each optimizer the runs at its best learning rate by mean validation accuracy."""
    found: dict[str, list[dict[str, str]]] = {}
    for optimizer in TITLES:
        at = by_rate(rows, model, optimizer)
        found[optimizer] = max(at.values(), key=lambda rows: r.mean(r.shares(rows, VALIDATION)))
    return found


def by_rate(
    rows: list[dict[str, str]], model: str, optimizer: str
) -> dict[tuple[str, ...], list[dict[str, str]]]:
    own = [row for row in rows if (row["model"], row["optimizer"]) == (model, optimizer)]
    return r.grouped(own, "learning_rate")


def good_rates(rows: list[dict[str, str]], model: str, optimizer: str) -> list[str]:
    """The learning rates of the grid whose mean validation accuracy is within GOOD of the best."""
    means = {
        rate: r.mean(r.shares(own, VALIDATION))
        for (rate,), own in by_rate(rows, model, optimizer).items()
    }
    return [rate for rate, mean in means.items() if mean >= max(means.values()) - GOOD]


def table(rows: list[dict[str, str]]) -> str:
    lines = []
    for model in ("logistic_regression", "cnn"):
        for optimizer, best in best_rates(rows, model).items():
            good = good_rates(rows, model, optimizer)
            lines.append(
                [
                    model.replace("_", " "),
                    TITLES[optimizer],
                    best[0]["learning_rate"],
                    f"{r.mean_interval(r.shares(best, VALIDATION))} %",
                    f"{r.mean_interval(r.shares(best, 'test_accuracy'))} %",
                    good[0] if len(good) == 1 else f"{good[0]} to {good[-1]} ({len(good)} values)",
                ]
            )
    header = ["model", "optimizer", "best rate", "validation", "test", "rates within a point"]
    return r.markdown(header, lines)


def draw(rows: list[dict[str, str]]) -> None:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, (model, lowest) in zip(
        figure.subplots(1, 2), {"logistic_regression": 80, "cnn": 80}.items(), strict=True
    ):
        for number, (optimizer, title) in enumerate(TITLES.items()):
            at = by_rate(rows, model, optimizer)
            rates = [float(rate) for (rate,) in at]
            values = [[100 * v for v in r.shares(own, VALIDATION)] for own in at.values()]
            colour, marker = r.COLOURS[number], r.MARKERS[number]
            axes.plot(rates, list(map(r.mean, values)), color=colour, marker=marker, ms=4, label=title)
            low, high = list(map(min, values)), list(map(max, values))
            axes.fill_between(rates, low, high, color=colour, alpha=0.15, lw=0)
        epochs = EPOCHS[model]
        axes.set(xscale="log", ylim=(lowest, 100 if model == "cnn" else 93), xlabel="learning rate")
        axes.set(ylabel="validation accuracy (%)", title=f"{model.replace('_', ' ')}, {epochs} epochs")
        axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    r.save(figure, HERE / "learning_rates.png")


if __name__ == "__main__":
    r.main(train, write)
