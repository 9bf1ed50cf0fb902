"""Ray Tune and MLflow: python ray_tune.py FOLDER MODEL TRIALS"""

import sys
from pathlib import Path

import mlflow
import ray
from ray import tune

FOLDER, MODEL, TRIALS = sys.argv[1], sys.argv[2], int(sys.argv[3])
STORE, HERE = f"sqlite:///{FOLDER}/mlflow.db", str(Path(__file__).parent)
RATES = (1e-3, 0.3)


def open_store() -> None:
    mlflow.set_tracking_uri(STORE)
    mlflow.set_experiment("study")


def trial(config: dict[str, float]) -> dict[str, float]:
    sys.path.insert(0, HERE)
    from careful_loop import BATCH_SIZE, EPOCHS, train

    open_store()
    with mlflow.start_run():
        mlflow.log_params({**config, "batch_size": BATCH_SIZE, "epochs": EPOCHS[MODEL]})
        validation, test = train(
            MODEL,
            config["learning_rate"],
            lambda epoch, values: mlflow.log_metrics(values, step=epoch),
        )
        mlflow.log_metric("test_acc", test)
    return {"validation": validation}


def main() -> None:
    open_store()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"learning_rate": tune.loguniform(*RATES)},
        tune_config=tune.TuneConfig(
            num_samples=TRIALS, metric="validation", mode="max", reuse_actors=True
        ),
        run_config=tune.RunConfig(verbose=0, storage_path=FOLDER),
    ).fit()


if __name__ == "__main__":
    main()
