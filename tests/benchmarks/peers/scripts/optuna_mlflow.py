"""Optuna and MLflow as their documentation shows, in two processes.

python optuna_mlflow.py FOLDER MODEL TRIALS
"""

import subprocess
import sys
from pathlib import Path

import mlflow
import optuna

PROCESSES = 2


def main() -> None:
    folder, model, trials = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    open_stores(folder)
    study = {"study_name": "study", "storage": f"sqlite:///{folder}/optuna.db"}
    if "--worker" in sys.argv:
        optuna.load_study(**study).optimize(lambda trial: objective(trial, model), n_trials=trials)
        return
    optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0), **study)
    share = [sys.executable, __file__, str(folder), model, str(trials // PROCESSES), "--worker"]
    workers = [subprocess.Popen(share) for _ in range(PROCESSES)]
    sys.exit(max(worker.wait() for worker in workers))


def open_stores(folder: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("study")


def objective(trial: optuna.Trial, model: str) -> float:
    from careful_loop import BATCH_SIZE, EPOCHS, RATES, train

    learning_rate = trial.suggest_float("learning_rate", *RATES, log=True)
    with mlflow.start_run():
        knobs = {"learning_rate": learning_rate, "batch_size": BATCH_SIZE, "epochs": EPOCHS[model]}
        mlflow.log_params(knobs)
        validation, test = train(
            model, learning_rate, lambda epoch, values: mlflow.log_metrics(values, step=epoch)
        )
        mlflow.log_metric("test_acc", test)
    return validation


if __name__ == "__main__":
    main()
