"""Stock Hydra's --multirun and MLflow: python hydra_multirun.py FOLDER MODEL TRIALS basic|joblib"""

import sys
from dataclasses import dataclass

import hydra
import mlflow
from hydra.core.config_store import ConfigStore


@dataclass
class Config:
    folder: str
    model: str
    learning_rate: float = 0.01


ConfigStore.instance().store(name="config", node=Config)


@hydra.main(config_path=None, config_name="config", version_base="1.3")
def main(config: Config) -> None:
    from careful_loop import BATCH_SIZE, EPOCHS, train

    open_store(config.folder)
    with mlflow.start_run():
        knobs = {"batch_size": BATCH_SIZE, "epochs": EPOCHS[config.model]}
        mlflow.log_params({"learning_rate": config.learning_rate, **knobs})
        _, test = train(
            config.model,
            config.learning_rate,
            lambda epoch, values: mlflow.log_metrics(values, step=epoch),
        )
        mlflow.log_metric("test_acc", test)


def open_store(folder: str) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("study")


def multirun(folder: str, model: str, trials: int, launcher: str) -> list[str]:
    """The overrides of a sweep over so many learning rates, two jobs at a time where it can."""
    rates = ",".join(f"{0.3 * (number + 1) / trials:.6g}" for number in range(trials))
    jobs = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    return [
        *("--multirun", f"folder={folder}", f"model={model}", f"learning_rate={rates}"),
        *(f"hydra.sweep.dir={folder}/multirun", f"hydra/launcher={launcher}", *jobs),
    ]


if __name__ == "__main__":
    folder, model, trials, launcher = sys.argv[1:]
    open_store(folder)  # once, before two jobs create the same tables
    sys.argv[1:] = multirun(folder, model, int(trials), launcher)
    main()
