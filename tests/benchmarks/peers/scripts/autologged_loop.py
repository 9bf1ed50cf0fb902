"""A plain loop, one training after another: python autologged_loop.py FOLDER MODEL TRIALS

MLflow's autologging of PyTorch without Lightning records what a SummaryWriter of TensorBoard is given.
"""

import sys

import mlflow
from careful_loop import BATCH_SIZE, EPOCHS, train
from torch.utils.tensorboard import SummaryWriter


def main() -> None:
    folder, model, trials = sys.argv[1], sys.argv[2], int(sys.argv[3])
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("study")
    mlflow.pytorch.autolog(log_every_n_step=1)
    for number in range(trials):
        learning_rate = 0.3 * (number + 1) / trials
        with mlflow.start_run(), SummaryWriter(f"{folder}/{number}") as writer:
            knobs = {"batch_size": BATCH_SIZE, "epochs": EPOCHS[model]}
            mlflow.log_params({"learning_rate": learning_rate, **knobs})
            _, test = train(model, learning_rate, lambda *report, to=writer: write(to, *report))
            writer.add_scalar("test_acc", test, EPOCHS[model])


def write(writer: SummaryWriter, epoch: int, values: dict[str, float]) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, epoch)


if __name__ == "__main__":
    main()
