"""Sweeps with trials side by side: the same runs as one by one, whatever happens to them."""

import dataclasses
import json
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from digitlab import cli
from digitlab.config import project
from digitlab.config.composition import compose
from digitlab.sweep.planning.engines import OTHER_ORDERS, Plan, plan_chunks
from digitlab.sweep.planning.plan import plan
from digitlab.sweep.settings import EngineSettings
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun
from digitlab.training.fused import loop as fused_training
from digitlab.training.fused.architectures import ARCHITECTURES
from digitlab.training.fused.exact_ways import FILE, Answer
from digitlab.training.fused.members import STACKED, SideBySide
from digitlab.training.fused.probe import NOT_AT_ALL
from tests.support.cli import CHECKOUT, Cli, Start, slow
from tests.support.processes import is_training, processes_of, wait_for, workers_of
from tests.support.sweeps import bits, tree

LONG = (
    *("model=cnn", "model.channels_1=4", "model.channels_2=6", "model.hidden_units=20", "epochs=20"),
    *("batch_size=200", "seed=0,1,2,3", "data.order_seed=0", "engine=fused", "workers=1"),
)


def planned(*line: str, engine: str = "auto", workers: int = 2) -> Plan:
    trials = plan(list(line)).trials
    return plan_chunks(trials, EngineSettings(name=engine), workers)  # type: ignore[arg-type]


def sizes(found: Plan) -> list[int]:
    return [len(chunk) for chunk in found.chunks]


def engines(study: str) -> set[str]:
    return {run.tags.get("digitlab.engine", "sequential") for run in tree(study)[1]}


def documents(study: str) -> dict[str, dict[str, Any]]:
    """What each run has recorded."""
    store, found = RunStore(resolve_uri(None)), {}
    for run in tree(study)[1]:
        found[run.name] = json.loads(store.content(run, "record.json"))
    return found


def traces(study: str) -> dict[str, Any]:
    """Of each training, to the bit."""
    return {name: document["trace"] for name, document in documents(study).items()}


def test_the_work_is_cut_into_chunks_for_the_workers() -> None:
    many = ["optimizer.learning_rate=0.1,0.01,0.001", "seed=range(4)"]
    assert sizes(planned(*many)) == [6, 6], "logistic regression gains in whatever order"
    assert sorted(sizes(planned(*many, workers=5))) == [2, 2, 2, 3, 3]
    assert sizes(planned(*many, workers=1)) == [12]
    assert sizes(planned(*many, engine="sequential")) == [1] * 12
    assert sizes(planned("seed=range(600)", workers=1)) == [200] * 3, "of at most 256"
    numbers = [trial.number for chunk in planned(*many).chunks for trial in chunk]
    assert sorted(numbers) == list(range(12)), "each trial once"


def test_a_cnn_gains_by_company_in_the_same_order_only(monkeypatch: pytest.MonkeyPatch) -> None:
    cnn = ["model=cnn", "seed=range(8)"]
    assert sizes(planned(*cnn)) == [1] * 8
    assert planned(*cnn).alone == {OTHER_ORDERS: 8}
    assert sizes(planned(*cnn, "data.order_seed=0")) == [4, 4]
    assert sizes(planned(*cnn, engine="fused")) == [4, 4], "if it is asked for"
    monkeypatch.setitem(
        ARCHITECTURES, "cnn", dataclasses.replace(ARCHITECTURES["cnn"], largest_batch=499)
    )
    big = planned(*cnn, "data.order_seed=0", "batch_size=500")
    assert big.alone == {"batches of more than 499 of a cnn take too much memory": 8}
    rates = ["optimizer.learning_rate=0.1,0.01", "model.conv_dropout=0.1,0.2"]
    assert sizes(planned("model=cnn", *rates)) == [2, 2], "one seed is one order"


def test_no_more_trials_are_trained_at_once_than_fit_into_memory() -> None:
    def most(model: str, batch_size: int, shape: tuple[int, int, int], num_classes: int) -> int:
        return ARCHITECTURES[model].most_together(
            batch_size=batch_size, image_shape=shape, num_classes=num_classes
        )

    assert most("cnn", 2048, (1, 28, 28), 10) == most("cnn", 64, (3, 64, 64), 1000) == 4
    assert [most("cnn", 64, (3, side, side), 10) for side in (112, 128, 200, 256)] == [4, 4, 2, 1]
    assert most("logistic_regression", 64, (1, 28, 28), 10) == 256
    assert most("logistic_regression", 64, (3, 256, 256), 10) == 16
    assert most("logistic_regression", 64, (3, 256, 256), 1000) == 1


def test_what_shapes_a_training_is_the_same_in_a_chunk() -> None:
    def kinds(*line: str) -> int:
        return len(planned(*line, workers=1).chunks)

    assert kinds("optimizer=sgd,adam,rmsprop", "scheduler=constant,cosine", "seed=0,1") == 1
    assert kinds("early_stopping.patience=0,3", "checkpoint.weights=last,best") == 1
    assert kinds("batch_size=32,64", "seed=0,1") == 2
    assert kinds("epochs=2,3", "seed=0,1") == 2
    assert kinds("data.split_seed=0,1", "seed=0,1") == 2
    assert kinds("model=cnn", "model.channels_1=4,8", "model.hidden_dropout=0,0.5") == 2
    assert sizes(planned("threads=2", "seed=0,1")) == [1, 1]


def test_every_model_has_a_form_or_is_trained_alone() -> None:
    assert set(ARCHITECTURES) == {"logistic_regression", "cnn"}
    found = planned("seed=0,1", "threads=2")
    assert found.describe() == "2 one by one (threads is not 1)"


@pytest.mark.parametrize(
    "line",
    [
        ["optimizer=sgd,adam", "optimizer.learning_rate=0.01,0.001", "seed=0,1"],
        ["optimizer=adamw", "seed=range(5)", "data.order_seed=3", "workers=2"],
        ["model=cnn", "optimizer=sgd,rmsprop", "seed=0,1", "data.order_seed=0", "batch_size=50"],
        ["seed=0,1,2", "early_stopping.patience=1", "epochs=8", "checkpoint.weights=best"],
    ],
)
def test_a_sweep_side_by_side_records_what_it_does_one_by_one(digitlab: Cli, line: list[str]) -> None:
    line = ["sweep", "epochs=3", "executor=inprocess", *line]
    if "workers=2" in line:
        line.remove("executor=inprocess")
    for engine in ("sequential", "fused"):
        result = digitlab(*line, f"engine={engine}", f"study={engine}")
        assert result.code == 0, result.err
    assert engines("sequential") == {"sequential"}
    assert all(name.startswith("fused") for name in engines("fused"))
    assert traces("fused") == traces("sequential")
    assert bits("fused") == bits("sequential")
    for one, other in zip(tree("fused")[1], tree("sequential")[1], strict=True):
        same = {k: v for k, v in one.metrics.items() if not k.startswith("time/")}
        assert same == {k: v for k, v in other.metrics.items() if not k.startswith("time/")}
        assert one.params == {**other.params, "study": "fused"}
        assert one.tags["digitlab.fingerprint"] == other.tags["digitlab.fingerprint"]
    assert list(all_records(project.records())) == []


def test_a_trial_in_a_chunk_is_reproduced_by_itself(digitlab: Cli) -> None:
    digitlab("sweep", "epochs=2", "seed=0,1,2", "study=chunk", "engine=fused", "executor=inprocess")
    assert engines("chunk") == {"fused, 3 side by side"}
    result = digitlab("reproduce", tree("chunk")[1][1].run_id)
    assert result.code == 0, result.err
    assert "IDENTICAL" in result.out


def test_in_a_chunk_a_diverging_trial_fails_alone(digitlab: Cli) -> None:
    line = ["sweep", "epochs=2", "optimizer=sgd", "model=cnn", "executor=inprocess", "study=diverge"]
    result = digitlab(*line, "engine=fused", "optimizer.learning_rate=0.01,1e30,0.02")
    assert result.code == 1
    assert "2 finished, 1 failed" in result.err
    assert "trial 1 (lr=1e+30) failed: the training loss became" in result.err
    trials = tree("diverge")[1]
    assert [run.status for run in trials] == ["FINISHED", "FAILED", "FINISHED"]
    assert engines("diverge") == {"fused, 3 side by side"}
    digitlab(*line[:-1], "study=alone", "engine=sequential", "optimizer.learning_rate=0.01,1e30,0.02")
    alone = tree("alone")[1][1]
    assert trials[1].tags["digitlab.error"] == alone.tags["digitlab.error"], "at the same step"


@pytest.mark.parametrize(
    ("engine", "answer", "reason"),
    [
        (
            "fused",
            Answer(NOT_AT_ALL, 3.456),
            "this machine rounds 2 of them otherwise side by side than alone; one by one takes "
            "3.46 times as long",
        ),
        (
            "auto",
            Answer(STACKED, 0.9),
            "2 of them side by side gain nothing here: 0.90 times the speed of one by one, as measured",
        ),
    ],
)
def test_a_chunk_that_is_refused_is_trained_one_by_one_which_is_said(
    engine: str, answer: Answer, reason: str, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["sweep", "epochs=2", "seed=0,1", "executor=inprocess"]
    digitlab(*line, "study=fused", "engine=fused")
    monkeypatch.setattr(fused_training, "judge", lambda *_: answer)
    result = digitlab(*line, "study=apart", f"engine={engine}")
    assert result.code == 0
    assert f"trials 0, 1 are trained one by one: {reason}\n" in result.err
    assert f"Trained one by one: 2 of 2 trials. Why: {reason}." in result.out
    assert engines("apart") == {"sequential"}
    assert traces("apart") == traces("fused")
    again = digitlab(*line, "study=apart", f"engine={engine}")
    assert f"Trained one by one: 2 of 2 trials. Why: {reason}." in again.out, "from the journal"


def test_no_gain_is_no_reason_to_refuse_what_was_asked_for(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_training, "judge", lambda *_: Answer(STACKED, 0.5))
    digitlab("sweep", "epochs=1", "seed=0,1", "executor=inprocess", "engine=fused", "study=asked")
    assert engines("asked") == {"fused, 2 side by side"}


def test_a_worker_says_so_too(digitlab: Cli, home: Path) -> None:
    """And auto takes what earlier processes have measured: here, that nothing gains."""
    line = ["sweep", "epochs=1", "seed=range(4)", "workers=2", "engine=auto"]
    assert digitlab(*line, "study=first").code == 0
    file = home / "mlruns" / FILE
    entries = json.loads(file.read_text())
    for entry in entries.values():
        for question, answer in entry["answers"].items():
            answer["gain"] = 0.1 if "training of" in question else answer["gain"]
    file.write_text(json.dumps(entries))
    result = digitlab(*line, "study=second")
    assert "trials 0, 1 are trained one by one: 2 of them side by side gain nothing here" in result.err
    assert "trials 2, 3 are trained one by one" in result.err
    assert engines("second") == {"sequential"}


def test_what_befalls_all_of_a_chunk_leaves_each_to_go_on_alone(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = SideBySide.step, [0]

    def step(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] == 50:  # in the third epoch
            raise MemoryError("no more of it")
        return real(*arguments)  # type: ignore[arg-type]

    line = ["sweep", "epochs=4", "seed=0,1,2", "executor=inprocess", "engine=fused"]
    line += ["checkpoint.every_seconds=0"]
    digitlab(*line, "study=undisturbed")
    monkeypatch.setattr(SideBySide, "step", step)
    result = digitlab(*line, "study=memory")
    assert result.code == 0, result.err
    assert "3 trials side by side were stopped" in result.err
    assert "MemoryError: no more of it): they go on one by one" in result.err
    assert [run.status for run in tree("memory")[1]] == ["FINISHED"] * 3
    assert bits("memory") == bits("undisturbed")
    assert list(all_records(project.records())) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The weights of every trial of LONG, one after another in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "conf").symlink_to(CHECKOUT / "conf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITLAB_HOME", str(folder))
        line = [
            "sweep",
            *LONG[:-2],
            "engine=sequential",
            "executor=inprocess",
            "study=undisturbed",
            "record.plots=never",
        ]
        with pytest.raises(SystemExit) as end:
            cli.main(line)
        assert end.value.code == 0
        yield bits("undisturbed")


def start_and_wait(start: Start, home: Path, *line: str) -> subprocess.Popen[str]:
    process = start("sweep", *LONG, "checkpoint.every_seconds=0", *line)
    wait_for(lambda: is_training(home, 4), "all four have logged an epoch")
    return process


def test_a_chunk_whose_worker_is_killed_goes_on_one_by_one(
    digitlab_process: Start, home: Path, undisturbed: dict[str, str]
) -> None:
    process = start_and_wait(digitlab_process, home, "study=worker")
    workers_of(process)[0].kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "engine: 1 x 4 trials side by side" in errors
    assert "4 trials side by side were stopped" in errors
    assert "they go on one by one" in errors
    assert bits("worker") == undisturbed
    assert engines("worker") == {"fused, 4 side by side; then sequential"}


ONE_BY_ONE, IN_TWO = ["engine=sequential"], ["engine=fused", "workers=2"]


@pytest.mark.parametrize(
    ("again", "number"),
    [
        (ONE_BY_ONE, signal.SIGINT),
        (IN_TWO, signal.SIGKILL),
        pytest.param(ONE_BY_ONE, signal.SIGKILL, marks=slow),
        pytest.param(IN_TWO, signal.SIGINT, marks=slow),
    ],
)
def test_a_stopped_chunk_is_finished_in_other_company(
    number: signal.Signals,
    again: Sequence[str],
    digitlab: Cli,
    digitlab_process: Start,
    home: Path,
    undisturbed: dict[str, str],
) -> None:
    process = start_and_wait(digitlab_process, home, "study=stopped")
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_for(lambda: processes_of(home) == [], "no process is left")
    assert {run.status for run in tree("stopped")[1]} <= {"RUNNING", "KILLED"}
    result = digitlab("sweep", *LONG[:-2], "study=stopped", *again)
    assert result.code == 0, result.err
    (own,), trials = tree("stopped")
    assert [run.status for run in trials] == ["FINISHED"] * 4
    assert len({run.run_id for run in trials}) == 4, "each went on in the same run"
    assert bits("stopped") == undisturbed
    steps = [step for step, _ in history(trials[0], "train/loss")]
    assert steps == list(range(1, 21)), "no epoch is missing, none is there twice"
    assert own.status == "FINISHED"


def history(run: StoredRun, metric: str) -> list[tuple[int, float]]:
    return RunStore(resolve_uri(None)).history(run, metric)


def test_a_dry_run_shows_the_plan(digitlab: Cli) -> None:
    result = digitlab(
        "sweep", "model=cnn,logistic_regression", "seed=range(4)", "workers=2", "--dry-run"
    )
    assert f"engine: 2 x 2 trials side by side; 4 one by one ({OTHER_ORDERS})" in result.out
    result = digitlab("sweep", "seed=0,1", "engine=sequential", "--dry-run")
    assert "engine: 2 one by one (engine=sequential)" in result.out


def test_mistakes_about_engines_are_told(digitlab: Cli, home: Path) -> None:
    search = digitlab("sweep", "sweep=search", "trials=3", "engine=fused")
    assert search.code == 2
    assert "engine=fused needs sweep.search=grid, got tpe" in search.err
    unknown = digitlab("sweep", "seed=0,1", "engine=fusd")
    assert unknown.code == 2
    assert "engine must be one of auto, fused, sequential, got fusd; did you mean" in unknown.err
    inexact = digitlab("sweep", "seed=0,1", "engine.exact=false", "sweep.trials=0")
    assert inexact.code == 2
    assert "engine.exact=false is no setting any more" in inexact.err
    assert "sweep.trials must be an integer" in inexact.err
    single = digitlab("train", "engine=fused")
    assert single.code == 2
    assert "engine=fused has no effect on a single run" in single.err
    assert not (home / "mlruns").exists()


def test_doctor_says_whether_this_machine_is_exact(digitlab: Cli) -> None:
    (line,) = re.findall(r"engine +(.*)", digitlab("doctor").out)
    for members in ("64 logistic regressions", "4 CNNs"):
        assert f"{members} side by side" in line
    said = (
        "have the bits of each alone, at [0-9.]+ times the speed|one by one, which takes [0-9.]+ times"
    )
    assert len(re.findall(said, line)) == 2
    assert re.search(
        r"of [0-9]+ kinds of chunks tried here, \d refused for their bits, \d without gain", line
    )


def test_the_order_has_a_seed_of_its_own(digitlab: Cli) -> None:
    assert compose(["seed=3"]).data.order_seed is None
    digitlab("sweep", "epochs=1", "seed=5", "data.order_seed=null,5,6", "study=order")
    found = traces("order")
    orders = {name: trace["orders"] for name, trace in found.items()}
    assert orders["order_seed=null"] == orders["order_seed=5"] != orders["order_seed=6"]
