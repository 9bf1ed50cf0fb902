"""What the functions of `import digitlab` return of sweeps, comparisons, reproductions and models."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import digitlab as api
from digitlab.config import project
from digitlab.tracking.run_folder import all_records
from tests.support.cli import Cli

GRID = ["optimizer.learning_rate=1e-5,1e-2", "seed=0,1", "epochs=2"]
SCRIPT = """
print("imported as", __name__)
import sys
import digitlab

done = digitlab.sweep(["optimizer.learning_rate=1e-5,1e-2", "seed=0,1", "epochs=2", "workers=2"])
print(len(done.runs), done.best.status, "torch" in sys.modules, "mlflow" in sys.modules)
"""


def test_a_sweep_returns_its_runs_and_its_best(digitlab: Cli) -> None:
    done = api.sweep([*GRID, "study=swept", "executor=inprocess"])
    assert [run.knobs["seed"] for run in done.runs] == [0, 1, 0, 1]
    assert done.best == done.runs[2]
    assert done.best.knobs["optimizer.learning_rate"] == 1e-2
    assert [trial.state for trial in done.trials] == ["FINISHED"] * 4
    assert not done.failed
    assert "rank" in repr(done)
    assert "| rank |" in done._repr_markdown_()
    assert done.runs.to_pandas().shape[0] == 4
    again = api.sweep([*GRID, "study=swept", "executor=inprocess"])
    assert (again.id, [*again.runs]) == (done.id, [*done.runs])
    assert "command" not in digitlab("sweeps").err
    assert done.runs[0].tags["digitlab.command"].startswith("digitlab sweep optimizer.")


def test_a_trial_that_fails_raises_nothing_and_mistakes_do() -> None:
    done = api.sweep(
        ["optimizer=sgd", "optimizer.learning_rate=1e38,1e-2", "epochs=2", "executor=inprocess"]
    )
    (failed,) = done.failed
    assert "the training loss became" in (failed.error or "")
    assert [run.status for run in done.runs] == ["FAILED", "FINISHED"]
    with pytest.raises(api.ConfigError) as caught:
        api.sweep(["seed=-1,0", "epochs=0"])
    assert len(caught.value.problems) == 3


def test_a_script_needs_no_main_guard_and_imports_nothing_slow(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    told = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == ["imported as __main__", "4 FINISHED False False"]


def test_ctrl_c_stops_a_sweep_which_the_same_call_finishes() -> None:
    line = ["seed=0,1", "epochs=3000", "study=stopped", "workers=1", "engine=sequential"]

    def press_when_it_trains() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            trials = [r for r in all_records(project.records()) if not r.run.is_parent]
            if any(record.metric_lines() for record in trials):
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.01)

    threading.Thread(target=press_when_it_trains, daemon=True).start()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        api.sweep(line)
    assert signal.getsignal(signal.SIGINT) is before
    assert {run.status for run in api.runs(study="stopped")} == {"KILLED"}
    assert not any(folder.is_owned() for folder in _sweeps())


def _sweeps() -> list[object]:
    from digitlab.sweep.sweep_folder import SweepFolder

    return [SweepFolder(folder) for folder in project.sweeps().iterdir()]


def test_a_model_reads_arrays_as_the_run_did() -> None:
    run = api.train(["epochs=3"])
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    model = api.load_model(run)
    assert torch.equal(torch.rand(3), expected), "random numbers are the user's"
    data = api.load_data(run.config)
    assert (
        repr(data) == "Data digits: 1,257 train, 180 validation, 360 test images of 28x28, 10 classes"
    )
    images, labels = data.test
    classes, probabilities = model.predict(images), model.predict_proba(images)
    assert (classes == labels).mean() == run.metrics["test/accuracy"]
    assert classes.dtype == np.int64
    assert probabilities.shape == (len(images), len(model.class_names))
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert model.class_names == data.class_names
    assert isinstance(model.module, torch.nn.Module)
    assert api.load_model(run.id[:10]).run_id == run.id
    with pytest.raises(api.UsageError, match="images of shape"):
        model.predict(np.zeros((2, 3)))


def test_a_comparison_is_data_and_reads_like_the_command(digitlab: Cli) -> None:
    done = api.sweep([*GRID, "study=compared", "executor=inprocess"])
    assert done.best is not None
    assert api.load_model(done).run_id == done.best.id
    compared = api.compare(done)
    assert repr(compared).split() == digitlab("compare", done.id).out.split()
    frame = compared.to_pandas()
    assert [*frame["optimizer.learning_rate"]] == [1e-2, 1e-5]
    assert [*frame["n"]] == [2, 2]
    assert frame["difference"][1] < 0
    assert compared.to_dict()["sorted_by"] == compared.metric == "validation/accuracy"
    assert len(compared.sentences) == 1
    assert compared._repr_markdown_().startswith("| ")
    assert api.compare("compared").to_dict()["rows"] == compared.to_dict()["rows"]
    assert api.compare(done.runs).to_dict()["rows"] == compared.to_dict()["rows"]
    two = api.compare(done.runs[0], done.runs[2], against=done.runs[0])
    assert "McNemar" in two.sentences[0]
    with pytest.raises(api.UsageError, match="got none"):
        api.compare()


def test_a_reproduction_says_whether_the_bits_are_the_same(tmp_path: Path) -> None:
    run = api.train(["epochs=2"])
    again = api.reproduce(run)
    assert again.is_identical, again
    assert again.run is not None
    assert again.run.tags["digitlab.reproduces"] == run.id == again.recorded
    assert repr(again).startswith("IDENTICAL")
    file = tmp_path / "alone.yaml"
    file.write_text(str(run.config))
    alone = api.reproduce(file)
    assert alone.verdict == "CANNOT"
    assert any(line.startswith("not checked: code") for line in alone.details)
    assert alone.run is not None
    assert alone.run.tags["digitlab.weights"] == run.tags["digitlab.weights"]
    varied = api.reproduce(file, ["seed=1"])
    assert varied.verdict is None
    with pytest.raises(api.UsageError, match="no run abcd"):
        api.reproduce("abcd")
