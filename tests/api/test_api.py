"""`import digitlab`: what it returns, what it leaves alone in somebody's process, what it costs."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import digitlab as api
from digitlab.config import project
from digitlab.tracking.run_folder import all_records
from tests.support.cli import Cli, in_ci

SHORT = ["epochs=2"]
SLOW_LIBRARIES = ("torch", "mlflow", "hydra", "pandas", "click", "omegaconf", "rich", "numpy")
USERS_SCRIPT = """
import digitlab

config: digitlab.Config = digitlab.compose(["model=cnn"])
rate: float = config.optimizer.learning_rate
values: dict[str, object] = config.to_dict()
run: digitlab.Run = digitlab.train(["epochs=1"])
accuracy: float = run.metrics["test/accuracy"]
runs: digitlab.Runs = digitlab.runs(study="digitlab")
again: digitlab.Run = runs[0]
some: digitlab.Runs = runs[1:]
frame, curves = runs.to_pandas(), runs.history()
done: digitlab.Sweep = digitlab.sweep(["seed=0,1"], retries=1)
best: digitlab.Run | None = done.best
reasons: list[str | None] = [trial.error for trial in done.failed]
model: digitlab.Model = digitlab.load_model(best or "digits@champion")
names: list[str] = model.class_names
classes = model.predict([[0] * 784])
compared: digitlab.Comparison = digitlab.compare(done, run, "quickstart", against=again)
judged: digitlab.Reproduction = digitlab.reproduce(run, threads=2)
new: digitlab.Run | None = judged.run
try:
    digitlab.train(again.config)
except digitlab.ConfigError as error:
    problems: list[str] = error.problems
"""


def test_importing_it_costs_nothing_slow() -> None:
    code = "import digitlab, sys; dir(digitlab); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {*told.stdout.split()} & {*SLOW_LIBRARIES}


def test_everything_that_is_named_is_there_and_explained() -> None:
    for name in api.__all__:
        assert getattr(api, name).__doc__, name
        assert name in dir(api)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        api.trian  # noqa: B018


def test_a_run_has_the_bits_of_the_command_and_the_process_stays_as_it_was(digitlab: Cli) -> None:
    digitlab("train", *SHORT, "model=cnn", "threads=2")
    torch.set_num_threads(1)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)
    environment = dict(os.environ)
    try:
        with torch.no_grad():
            run = api.train([*SHORT, "model=cnn", "threads=2"])
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == 1
    assert os.environ == environment
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers

    by_command = api.runs()[1]
    assert run.tags["digitlab.weights"] == by_command.tags["digitlab.weights"]
    assert run.tags["digitlab.command"] == "digitlab train epochs=2 model=cnn threads=2"
    assert by_command != run == api.runs()[0]
    assert run.status == "FINISHED"
    assert run.metrics["test/accuracy"] > 0.2
    assert run.knobs["threads"] == 2
    assert str(run.config) == str(api.compose([*SHORT, "model=cnn", "threads=2"]))
    again = api.train(run.config)
    assert again.tags["digitlab.weights"] == run.tags["digitlab.weights"]


def test_a_study_is_a_frame_of_runs_and_one_of_epochs() -> None:
    for seed in (0, 1):
        api.train([*SHORT, f"seed={seed}", "study=frames"])
    runs = api.runs(study="frames")
    frame, curves = runs.to_pandas(), runs.history()
    assert [*frame.index] == [run.id for run in runs]
    assert [*frame["seed"]] == [1, 0]
    assert frame["optimizer.learning_rate"].dtype == "float64"
    assert frame["test/accuracy"].between(0.5, 1).all()
    assert {"digitlab.commit", "started", "seconds"} <= {*frame}
    assert not any(name.startswith("mlflow.") for name in frame)
    assert [*curves["epoch"]] == [1, 2, 1, 2]
    assert curves.pivot(index="epoch", columns="run_id", values="validation/loss").shape == (2, 2)
    assert [*runs[0].history()["epoch"]] == [1, 2]
    assert runs[:1].to_pandas().shape[0] == 1
    assert len(repr(runs).splitlines()) == 3
    assert runs._repr_markdown_().startswith("| run | status | model | seed |")
    assert runs[:0].to_pandas().empty
    assert repr(runs[:0]) == "no runs"
    with pytest.raises(api.UsageError, match="no study 'nothing'"):
        api.runs(study="nothing")


def test_mistakes_are_exceptions_that_name_all_of_them() -> None:
    with pytest.raises(api.ConfigError) as caught:
        api.train(["modle=cnn", "epochs=0"])
    assert [*map(str.split, caught.value.problems)]
    assert len(caught.value.problems) == 2
    with pytest.raises(api.UsageError, match="write \\['epochs=1'\\]"):
        api.compose("epochs=1")
    with pytest.raises(api.UsageError, match="must be texts"):
        api.compose([1])  # type: ignore[list-item]
    torch.backends.cpu.get_cpu_capability()  # decides it, as any computing does
    with pytest.raises(api.ConfigError, match="restart the kernel"):
        api.train(["arithmetic=portable"])


def test_a_configuration_is_printed_as_the_yaml_that_it_is_read_from(tmp_path: Path) -> None:
    config = api.compose(["model=cnn", "epochs=7"])
    file = tmp_path / "mine.yaml"
    file.write_text(str(config))
    assert api.compose(file=file) == config
    assert api.compose(["seed=3"], file=str(file)).seed == 3
    assert config.to_dict()["model"]["name"] == "cnn"
    assert config._repr_markdown_() == f"```yaml\n{config}```"


def test_ctrl_c_ends_the_run_as_killed_and_returns(home: Path) -> None:
    def press_when_it_trains() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if any(record.metric_lines() for record in all_records(project.records())):
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.01)

    threading.Thread(target=press_when_it_trains, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        api.train(["epochs=100000"])
    (run,) = api.runs()
    assert run.status == "KILLED"
    assert len(run.epochs()) >= 1
    (record,) = all_records(project.records())
    assert record.has_checkpoint
    assert api.train(SHORT).status == "FINISHED", "the prompt is back"


def test_other_threads_may_train_and_take_turns() -> None:
    runs: dict[int, api.Run] = {}

    def train(seed: int) -> None:
        runs[seed] = api.train([*SHORT, "model=cnn", f"seed={seed}"])

    threads = [threading.Thread(target=train, args=(seed,)) for seed in (0, 1)]
    api.train([*SHORT, "study=before"])
    for thread in threads:
        thread.start()
    assert all(run.status != "FAILED" for run in api.runs())  # meanwhile
    for thread in threads:
        thread.join()
    alone = api.train([*SHORT, "model=cnn", "seed=1"])
    assert alone.tags["digitlab.weights"] == runs[1].tags["digitlab.weights"]
    assert runs[0].tags["digitlab.weights"] != runs[1].tags["digitlab.weights"]


@in_ci
def test_a_users_script_is_typed(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(USERS_SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(script)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode == 0, told.stdout
    script.write_text(
        USERS_SCRIPT + "digitlab.train(3)\nrun.metrics['x'] = 1\ndigitlab.runs(studie='x')\n"
    )
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "Found 3 errors" in told.stdout
