"""Sweeps as their users see them: a tree of runs, skipping, failures that stay where they are."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from digitlab.config import project
from digitlab.runs.experiment import OpenRun
from digitlab.runs.interrupts import ONE_REQUEST_SECONDS
from digitlab.sweep.sweep_folder import all_sweeps
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.store import RunStore
from digitlab.training.loop import EpochReport
from tests.support.cli import CHECKOUT, Cli, Start, heed_interrupts, in_ci
from tests.support.processes import is_training, processes_of, wait_for, workers_of
from tests.support.sweeps import bits, tree

QUICK = ("epochs=2", "executor=inprocess")
LONG = ("model=cnn", "epochs=400", "workers=2")  # half a minute each: somebody will interrupt it


def test_a_grid_leaves_one_parent_and_a_child_for_each_trial(digitlab: Cli) -> None:
    line = [
        "sweep",
        *QUICK,
        "record.plots=auto",
        "study=tree",
        "optimizer=sgd,adam",
        "optimizer.learning_rate=0.1,0.01",
    ]
    result = digitlab(*line)
    assert result.code == 0, result.err
    (own,), trials = tree("tree")
    assert own.status == "FINISHED"
    assert own.name == "optimizer x learning_rate"
    assert own.params["swept.optimizer.learning_rate"] == "0.1, 0.01"
    assert own.tags["best.run"] in {run.run_id for run in trials}
    best = max(trials, key=lambda run: run.metrics["chosen/validation_accuracy"])
    assert own.metrics["best/chosen/validation_accuracy"] <= best.metrics["chosen/validation_accuracy"]
    artifacts = [path for path, _ in RunStore(resolve_uri(None)).artifacts(own)]
    assert {"manifest.json", "trials.csv", "summary.md", "sweep.html"} <= set(artifacts)
    assert {"parallel_coordinates.png", "importance.png", "learning_curves.png"} <= set(artifacts)
    assert [run.name for run in trials] == [
        *("sgd lr=0.1", "sgd lr=0.01", "adam lr=0.1", "adam lr=0.01")
    ]
    for number, run in enumerate(trials):
        assert run.status == "FINISHED"
        assert run.tags["mlflow.parentRunId"] == own.run_id
        assert run.tags["sweep"] == own.tags["digitlab.sweep"]
        assert run.tags["trial"] == str(number)
        assert run.tags["swept.optimizer"] == run.params["optimizer.name"]
        assert run.tags["swept.optimizer.learning_rate"] == run.params["optimizer.learning_rate"]
        assert {"model.name", "batch_size", "epochs", "scheduler.name"} <= set(run.params)
    link = f"viewStateShareKey={own.tags['digitlab.sweep']}"
    assert result.err.count(link) == 2, "when it starts and when it ends"
    assert list(all_records(project.records())) == []


def test_the_table_ranks_by_validation(digitlab: Cli) -> None:
    out = digitlab("sweep", *QUICK, "study=ranked", "optimizer.learning_rate=1e-6,0.01").out
    rows = [line.split() for line in out.splitlines() if re.match(r"\s*\d ", line)]
    assert [row[2] for row in rows] == ["0.01", "1e-06"]


def test_every_way_to_run_a_sweep_gives_the_same_bits(digitlab: Cli) -> None:
    line = ["sweep", "epochs=2", "model=cnn,logistic_regression", "optimizer=sgd,adam"]
    ways = {
        "serial": ["seed=0,1", "executor=inprocess"],
        "one worker": ["seed=0,1", "workers=1"],
        "four workers": ["seed=0,1", "workers=4"],
        "shuffled": ["seed=shuffle(0,1)", "workers=2"],
    }
    for study, how in ways.items():
        result = digitlab(*line, f"study={study}", *how)
        assert result.code == 0, result.err
    assert len(set(bits("serial").values())) == 8, "they differ among one another"
    for study in ways:
        assert bits(study) == bits("serial"), study
        (own,), trials = tree(study)
        assert all(run.tags["mlflow.parentRunId"] == own.run_id for run in trials)
    digitlab("train", "epochs=2", "model=cnn", "optimizer=sgd", "seed=1", "study=alone")
    (alone,) = RunStore(resolve_uri(None)).runs("alone")
    assert alone.tags["digitlab.weights"] == bits("serial")["cnn sgd seed=1"]
    assert alone.tags["digitlab.fingerprint"] in {
        run.tags["digitlab.fingerprint"] for run in tree("serial")[1]
    }


def test_a_finished_sweep_is_not_repeated(digitlab: Cli) -> None:
    line = ["sweep", *QUICK, "study=again", "seed=0,1"]
    digitlab(*line)
    before = tree("again")
    again = digitlab(*line)
    assert again.code == 0
    assert "2 trials, all ended before: 2 finished" in again.out
    assert "rank" in again.out, "its table is shown again"
    assert tree("again") == before
    # How it is run and where it is told changes nothing.
    assert (
        "all ended before" in digitlab("sweep", "epochs=2", "study=again", "seed=1,0", "workers=3").out
    )


def test_a_trial_that_another_sweep_has_finished_is_taken_over(digitlab: Cli) -> None:
    digitlab("sweep", *QUICK, "study=shared", "seed=0,1")
    digitlab("train", "epochs=2", "study=shared", "seed=2")
    result = digitlab("sweep", *QUICK, "study=shared", "seed=range(4)")
    assert "4 trials, 3 of them ended before" in result.err
    newest = all_sweeps(project.sweeps())[0].id
    members = [
        run for run in RunStore(resolve_uri(None)).runs("shared") if newest in run.tags.get("sweep", "")
    ]
    assert sorted(run.params["seed"] for run in members) == ["0", "1", "2", "3"], (
        "its view shows them all"
    )


def test_rerun_makes_a_sweep_of_its_own(digitlab: Cli) -> None:
    digitlab("sweep", *QUICK, "study=rerun", "seed=0,1")
    digitlab("sweep", *QUICK, "study=rerun", "seed=0,1", "--rerun")
    own, trials = tree("rerun")
    assert len(own) == 2
    assert len(trials) == 4
    assert len(set(bits("rerun").values())) == 2


def test_a_dry_run_shows_the_trials_and_creates_nothing(digitlab: Cli, home: Path) -> None:
    line = ["sweep", *QUICK, "study=dry", "seed=0,1", "optimizer.learning_rate=0.1,0.01"]
    result = digitlab(*line, "--dry-run")
    assert result.code == 0
    assert "4 trials: 0 finished, 4 to run" in result.out
    assert "seed=1 lr=0.01" in result.out
    assert "time: unknown" in result.out
    assert not (home / "mlruns").exists()
    digitlab("sweep", *QUICK, "study=dry", "seed=0", "optimizer.learning_rate=0.1,0.01")
    before = sorted((home / "mlruns").rglob("*"))
    result = digitlab(*line, "--dry-run")
    assert "4 trials: 2 finished, 2 to run" in result.out
    assert "time: about" in result.out
    assert sorted((home / "mlruns").rglob("*")) == before


def test_a_dry_run_says_which_knob_makes_a_trial_run_again(digitlab: Cli, home: Path) -> None:
    line = ["sweep", *QUICK, "study=why", "seed=0,1"]
    digitlab(*line)
    file = home / "conf" / "optimizer" / "adam.yaml"
    file.write_text(file.read_text().replace("weight_decay: 0.0", "weight_decay: 0.5"))
    result = digitlab(*line, "--dry-run")
    assert "2 trials: 0 finished, 2 to run" in result.out
    assert "optimizer.weight_decay is 0.5, was 0.0 in run" in result.out
    assert digitlab(*line).code == 0
    assert len(tree("why")[1]) == 4


def test_code_that_decides_numbers_makes_trials_run_again_and_a_comment_does_not(
    digitlab: Cli, home: Path, tmp_path: Path
) -> None:
    line = ["sweep", *QUICK, "study=source", "seed=0,1"]
    digitlab(*line)
    shutil.copytree(CHECKOUT / "src", tmp_path / "src")

    def after(name: str, line_more: str) -> str:
        with (tmp_path / "src" / "digitlab" / name).open("a") as file:
            file.write(f"{line_more}\n")
        again = subprocess.run(
            [sys.executable, "-m", "digitlab.cli", *line, "--dry-run"],
            capture_output=True,
            text=True,
            env={
                "PYTHONPATH": str(tmp_path / "src"),
                "PATH": "/usr/bin:/bin",
                "DIGITLAB_HOME": str(home),
            },
        )
        assert again.returncode == 0, again.stderr
        return again.stdout

    is_finished = "2 trials: 2 finished, 0 to run"
    assert is_finished in after("cli/train.py", "MORE = 1"), "it decides no number"
    assert is_finished in after("training/loop.py", '# one line more\n"""And a text."""')
    dry_run = after("training/loop.py", "MORE = 1")
    assert "2 trials: 0 finished, 2 to run" in dry_run
    assert re.search(r"source changed since run \w+: training/loop.py$", dry_run, re.MULTILINE)


def test_a_bad_trial_stops_all_before_the_first(digitlab: Cli, home: Path) -> None:
    rates = ",".join([*(f"{i / 100}" for i in range(1, 38)), "-1"])
    result = digitlab("sweep", f"optimizer.learning_rate={rates}", "epochs=1")
    assert result.code == 2
    assert "trial 37 (lr=-1): optimizer.learning_rate must be a number > 0, got -1" in result.err
    assert not (home / "mlruns").exists()


@pytest.mark.fault("F5", "F14")
def test_a_diverging_trial_fails_alone(digitlab: Cli, home: Path) -> None:
    line = [
        "sweep",
        *QUICK,
        "study=diverge",
        "model=cnn",
        "optimizer=sgd",
        "optimizer.learning_rate=0.1,1e30,0.01",
    ]
    result = digitlab(*line)
    assert result.code == 1
    assert "2 finished, 1 failed" in result.err
    assert "trial 1 (lr=1e+30) failed: the training loss became" in result.err
    (own,), trials = tree("diverge")
    assert [run.status for run in trials] == ["FINISHED", "FAILED", "FINISHED"]
    assert own.status == "FAILED"
    again = digitlab(*line)
    assert again.code == 1, "still"
    assert "all ended before" in again.out, "it would diverge again"
    dry_run = digitlab(*line, "--dry-run").out
    assert "failed    by the sweep's journal" in dry_run
    assert "3 trials: 2 finished, 1 failed, 0 to run" in dry_run
    (journal,) = home.glob("mlruns/sweeps/*/journal.jsonl")
    journal.write_text(re.sub(r', "is_final": \w+', "", journal.read_text()))
    assert "all ended before" in digitlab(*line).out, "as journals of an earlier digitlab say it"


@pytest.mark.fault("F5")
def test_an_exception_fails_alone_with_its_traceback(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from digitlab.runs import experiment

    real = experiment.evaluate

    def evaluate(logits: object, labels: object) -> object:
        if calls.append(1) or len(calls) == 2:
            raise MemoryError("no more of it")
        return real(logits, labels)  # type: ignore[arg-type]

    calls: list[int] = []
    monkeypatch.setattr(experiment, "evaluate", evaluate)
    line = ["sweep", *QUICK, "study=raise", "seed=0,1,2"]
    result = digitlab(*line)
    assert result.code == 1
    assert "trial 1 (seed=1) failed: MemoryError: no more of it" in result.err
    (path,) = re.findall(r"traceback: (.+)", result.err)
    assert "in evaluate" in Path(path).read_text()
    assert [run.status for run in tree("raise")[1]] == ["FINISHED", "FAILED", "FINISHED"]
    again = digitlab(*line)
    assert again.code == 0, "the one that failed is tried again"
    assert "2 of them ended before" in again.err
    own, trials = tree("raise")
    assert [run.status for run in own] == ["FINISHED"]
    assert len(trials) == 4, "a failure is not forgotten"


@pytest.mark.fault("F5")
def test_retries_and_fail_fast(digitlab: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from digitlab.runs import experiment

    real = experiment.evaluate
    left = [1]

    def evaluate(logits: object, labels: object) -> object:
        if left:
            left.pop()
            raise OSError("for once")
        return real(logits, labels)  # type: ignore[arg-type]

    monkeypatch.setattr(experiment, "evaluate", evaluate)
    assert digitlab("sweep", *QUICK, "study=retried", "seed=0,1", "--retries", "1").code == 0
    left.append(1)
    result = digitlab("sweep", *QUICK, "study=fast", "seed=0,1,2", "--fail-fast")
    assert result.code == 1
    assert [run.status for run in tree("fast")[1]] == ["FAILED", "KILLED", "KILLED"]
    assert digitlab("sweep", *QUICK, "study=fast", "seed=0,1,2").code == 0


@pytest.mark.fault("F5")
def test_running_out_of_memory_costs_one_trial(home: Path, tmp_path: Path) -> None:
    def limited() -> None:
        heed_interrupts()
        resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))

    process = subprocess.run(
        [
            *(sys.executable, "-m", "digitlab.cli", "sweep", "model=cnn", "epochs=1", "workers=1"),
            "device=cpu",  # whose memory the limit is about
            *("study=memory", "model.hidden_units=16,32", "model.channels_2=4,4096", "batch_size=1000"),
        ],
        capture_output=True,
        text=True,
        preexec_fn=limited,
        timeout=300,
    )
    assert process.returncode == 1, process.stderr
    trials = tree("memory")[1]
    assert {run.status for run in trials if run.params["model.channels_2"] == "4"} == {"FINISHED"}
    assert {run.status for run in trials if run.params["model.channels_2"] == "4096"} == {"FAILED"}


@pytest.mark.fault("F5")
def test_a_worker_that_is_killed_costs_its_trial_and_is_continued(
    digitlab: Cli, digitlab_process: Start, home: Path
) -> None:
    line = ["sweep", "model=cnn", "epochs=20", "study=worker", "seed=0,1,2", "workers=1"]
    line.append("checkpoint.every_seconds=0")
    process = digitlab_process(*line)
    wait_for(lambda: is_training(home), "training")
    (worker,) = workers_of(process)
    worker.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "failed: its process was ended by SIGKILL" in errors
    assert [run.status for run in tree("worker")[1]] == ["KILLED", "FINISHED", "FINISHED"]
    killed = tree("worker")[1][0].run_id
    assert digitlab(*line).code == 0
    (own,), trials = tree("worker")
    assert [run.status for run in trials] == ["FINISHED"] * 3
    assert trials[0].run_id == killed, "the same run goes on"
    assert "digitlab.error" not in trials[0].tags
    assert own.status == "FINISHED"
    digitlab("train", "model=cnn", "epochs=20", "study=alone")
    (alone,) = RunStore(resolve_uri(None)).runs("alone")
    assert alone.tags["digitlab.weights"] == trials[0].tags["digitlab.weights"]


@pytest.mark.fault("F4")
def test_ctrl_c_stops_at_a_step_and_says_how_to_go_on(
    digitlab_process: Start, digitlab: Cli, home: Path
) -> None:
    process = digitlab_process("sweep", *LONG, "study=stopped", "seed=0,1,2")
    wait_for(lambda: is_training(home, 2), "two trials training")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    (sweep,) = all_sweeps(project.sweeps())
    assert f"to go on: digitlab resume {sweep.id}" in errors
    (own,), trials = tree("stopped")
    assert own.status == "KILLED"
    assert [run.status for run in trials] == ["KILLED", "KILLED"]
    assert trials[0].tags["digitlab.error"] == "stopped by SIGINT"
    wait_for(lambda: processes_of(home) == [], "every process ends")
    listed = digitlab("sweeps").out.splitlines()[1]
    assert listed.split()[:3] == [sweep.id, "cut", "short"]
    assert listed.split()[-3:] == ["0", "0", "3"]


@pytest.mark.fault("F4")
@pytest.mark.parametrize("delay", [0.0, pytest.param(0.5, marks=in_ci), 1.5])
def test_ctrl_c_on_the_terminal_while_workers_start_stops_too(
    delay: float, digitlab_process: Start, home: Path
) -> None:
    """It reaches every process of the group: the one that imports for the workers, as well."""
    process = digitlab_process("sweep", *LONG, "study=early", "seed=0,1", is_real=True)
    wait_for(lambda: list((home / "mlruns").glob("sweeps/*/journal.jsonl")), "the sweep begins")
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "to go on: digitlab resume" in errors
    wait_for(lambda: processes_of(home) == [], "every process ends")


ENDLESS = ("model=cnn", "epochs=100000", "checkpoint.every_seconds=0")
WAYS = {
    "processes": ["seed=0,1,2", "engine=sequential", "workers=2"],
    "side by side": ["seed=0,1,2,3", "data.order_seed=0", "engine=fused", "workers=2"],
    "in process": ["seed=0,1", "executor=inprocess", "engine=sequential"],
    "search": ["optimizer.learning_rate=interval(0.001,0.1)", "sweep.search=random", "trials=4"],
}


@pytest.mark.fault("F4")
@pytest.mark.parametrize(
    ("way", "number", "code"),
    [
        ("processes", signal.SIGTERM, 143),
        pytest.param("processes", signal.SIGHUP, 129, marks=in_ci),
        pytest.param("processes", signal.SIGINT, 130, marks=in_ci),
        ("side by side", signal.SIGTERM, 143),
        ("in process", signal.SIGTERM, 143),
        ("search", signal.SIGTERM, 143),
    ],
)
def test_a_signal_to_the_whole_group_stops_every_trial(
    way: str, number: signal.Signals, code: int, digitlab_process: Start, home: Path
) -> None:
    """As `timeout`, scancel and systemd send it: the controller twice, and whoever works for it."""
    process = digitlab_process("sweep", *ENDLESS, "study=group", *WAYS[way])
    wait_for(lambda: is_training(home, 1 if way == "in process" else 2), "training")
    process.send_signal(number)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "to go on: digitlab resume" in errors
    wait_for(lambda: processes_of(home) == [], "every process ends")
    own, trials = tree("group")
    assert {run.status for run in own + trials} == {"KILLED"}
    assert {run.tags["digitlab.error"] for run in trials} == {f"stopped by {number.name}"}


def test_a_signal_to_one_worker_stops_every_trial(digitlab_process: Start, home: Path) -> None:
    process = digitlab_process("sweep", *ENDLESS, "study=worker", *WAYS["side by side"])
    wait_for(lambda: is_training(home, 4), "training")
    workers_of(process)[0].terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "to go on: digitlab resume" in errors
    own, trials = tree("worker")
    assert {run.status for run in own + trials} == {"KILLED"}


@pytest.mark.fault("F4")
def test_a_second_ctrl_c_stops_at_once(digitlab_process: Start, home: Path, digitlab: Cli) -> None:
    process = digitlab_process("sweep", *LONG, "study=twice", "seed=0,1")
    wait_for(lambda: is_training(home), "training")
    workers = workers_of(process)
    for worker in workers:
        worker.suspend()  # it cannot reach its next step
    process.send_signal(signal.SIGINT)
    time.sleep(ONE_REQUEST_SECONDS + 0.2)
    assert process.poll() is None, "it waits for the trials"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    for worker in workers:
        worker.resume()
    wait_for(lambda: processes_of(home) == [], "every process ends")
    digitlab("runs")  # the next command tidies up
    own, trials = tree("twice")
    assert {run.status for run in own + trials} == {"KILLED"}


def test_an_edited_file_changes_nothing_in_a_running_sweep(digitlab_process: Start, home: Path) -> None:
    process = digitlab_process("sweep", "epochs=2", "study=frozen", "seed=range(6)", "workers=1")
    wait_for(lambda: list((home / "mlruns").glob("sweeps/*/manifest.json")), "the manifest")
    file = home / "conf" / "optimizer" / "adam.yaml"
    file.write_text(file.read_text().replace("0.001", "0.5"))
    (home / "conf" / "model" / "logistic_regression.yaml").unlink()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert {run.params["optimizer.learning_rate"] for run in tree("frozen")[1]} == {"0.001"}


def spoil(file: Path, how: bytes) -> None:
    """One line of a journal, or all of another file, becomes this."""
    lines = file.read_bytes().splitlines(keepends=True) if file.suffix == ".jsonl" else []
    file.write_bytes(b"".join([*lines[:-1], how + b"\n"]))


@pytest.mark.parametrize("how", [b"null", b'{"event": "ended", "number": 0, "name": "\xff"}'])
def test_damaged_files_of_a_sweep_cost_neither_it_nor_another(
    how: bytes, digitlab: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from digitlab.sweep.workers.trial import TrialWatch

    assert digitlab("sweep", *QUICK, "study=other", "seed=0").code == 0
    line = ["sweep", *QUICK, "study=hurt", "seed=0,1", "engine=sequential", "model=cnn"]
    assert digitlab(*line, "study=undisturbed").code == 0
    real = TrialWatch.after_epoch

    def after_epoch(self: TrialWatch, report: EpochReport) -> None:
        real(self, report)
        if self._task.trial.number == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(TrialWatch, "after_epoch", after_epoch)
        assert digitlab(*line).code == 130
    (sweep,) = [folder for folder in all_sweeps(project.sweeps()) if folder.manifest().study == "hurt"]
    records = project.records()
    files = [sweep.folder / "manifest.json", sweep.folder / "journal.jsonl"]
    files += [records / f"sweep-{sweep.id}" / name for name in ("run.json", "delivery.json")]
    files += [records / f"{sweep.id}-0001" / name for name in ("metrics.jsonl", "run.json")]
    for file in files[1:]:
        spoil(file, how)
    assert f"digitlab resume {sweep.id} sets them aside" in digitlab("sweeps").err
    spoil(files[0], how)
    listed = digitlab("sweeps")
    assert listed.code == 0
    assert "other" in listed.out
    assert "to go on, repeat its command: " in listed.err
    told = digitlab("doctor").out
    assert all(name in told for name in (sweep.id, str(files[2].parent), str(files[4].parent)))
    assert digitlab("sync").code == 0
    assert digitlab("resume", "nothing like it").code == 2, "not because of the damaged one"

    again = digitlab(*line)
    assert again.code == 0, again.err
    assert "damaged lines of its journal were set aside" in again.err
    assert "manifest.json was damaged: it is made anew" in again.err
    (own,), trials = tree("hurt")
    assert {run.status for run in [own, *trials]} == {"FINISHED"}
    assert bits("hurt") == bits("undisturbed")
    told = digitlab("doctor").out.replace(str(home), "")
    assert sweep.id not in told
    assert "damaged" not in told


@pytest.mark.fault("F28")
def test_two_processes_do_not_work_on_one_sweep(
    digitlab_process: Start, digitlab: Cli, home: Path
) -> None:
    process = digitlab_process("sweep", *LONG, "study=once", "seed=0,1")
    wait_for(lambda: is_training(home), "training")
    second = digitlab("sweep", *LONG, "study=once", "seed=0,1")
    assert second.code == 2
    assert "is being worked on by another process" in second.err
    assert "running" in digitlab("sweeps").out
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_resume_needs_the_manifest_alone(digitlab: Cli, home: Path) -> None:
    line = ["sweep", *QUICK, "study=resume", "seed=0,1", "sweep.name=from the manifest"]
    digitlab(*line)
    store = RunStore(resolve_uri(None))
    lost = tree("resume")[1][0]
    store._client.delete_run(lost.run_id)
    shutil.rmtree(home / "conf" / "optimizer")
    result = digitlab("resume", "from the manifest")
    assert result.code == 0, result.err
    assert "1 of them ended before" in result.err
    assert len(tree("resume")[1]) == 2
    assert digitlab("resume", "nonsense").code == 2


def test_the_winner_as_a_preset_gives_its_score_exactly(digitlab: Cli, home: Path) -> None:
    line = ["sweep", *QUICK, "study=12e34", "optimizer=sgd,adam", "optimizer.learning_rate=0.3,0.003"]
    result = digitlab(*line, "seed=3", "scheduler=cosine", "--save-best", "best_of_four")
    assert result.code == 0, result.err
    (own,), _ = tree("12e34")
    preset = yaml.safe_load((home / "conf" / "experiment" / "best_of_four.yaml").read_text())
    assert {"override /scheduler": "cosine"} in preset["defaults"]
    assert "study: '12e34'" in digitlab("config", "experiment=best_of_four").out
    assert digitlab("train", "experiment=best_of_four", "study=proof").code == 0
    (run,) = RunStore(resolve_uri(None)).runs("proof")
    name = "chosen/validation_accuracy"
    assert run.metrics[name] == own.metrics[f"best/{name}"]
    assert run.metrics["chosen/validation_loss"] == own.metrics["best/chosen/validation_loss"]
    refused = digitlab(*line, "--save-best", "best_of_four")
    assert refused.code == 2
    assert "is there already" in refused.err
    assert digitlab(*line, "--save-best", "../evil").code == 2


def test_a_project_may_lie_in_a_folder_of_any_name(
    digitlab: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    line = ["sweep", "epochs=1", "executor=inprocess", "study=odd", "record.plots=never"]
    result = digitlab(*line, "seed=0,1")
    assert result.code == 0, result.err
    listed = json.loads(
        digitlab("runs", f"tracking.uri=sqlite:///{home}/mlruns/mlflow.db", "--json").out
    )
    assert len(listed) >= 2
    repeated = digitlab("reproduce", listed[0]["run_id"])
    assert repeated.out.startswith("IDENTICAL"), repeated.err


def test_a_project_of_an_earlier_digitlab_still_composes(digitlab: Cli, home: Path) -> None:
    """Its conf/ chose plugins that Hydra found then."""
    file = home / "conf" / "config.yaml"
    plugins = "  - override hydra/sweeper: digitlab\n  - override hydra/launcher: digitlab\n"
    file.write_text(
        file.read_text().replace("  - experiment: null\n", f"  - experiment: null\n{plugins}")
    )
    result = digitlab("sweep", "seed=0,1", "epochs=1", "executor=inprocess")
    assert result.code == 0, result.err


def test_a_sweep_goes_on_without_its_store_and_is_delivered_later(
    digitlab: Cli, tmp_path: Path
) -> None:
    away = "tracking.uri=http://127.0.0.1:9"
    result = digitlab("sweep", *QUICK, "study=away", "seed=0,1", away)
    assert result.code == 0, result.err
    assert "does not answer" in result.err
    assert len(list(all_records(project.records()))) == 3
    assert digitlab("sync", "--tracking-uri", resolve_uri(None)).code == 0
    (own,), trials = tree("away")
    assert [run.status for run in [own, *trials]] == ["FINISHED"] * 3
    assert all(run.tags["mlflow.parentRunId"] == own.run_id for run in trials)


def test_trials_that_a_silent_store_has_are_not_trained_again(digitlab: Cli) -> None:
    line = ["sweep", *QUICK, "study=silent", "tracking.uri=http://127.0.0.1:9"]
    digitlab(*line, "seed=0,1")
    for record in all_records(project.records()):
        record.delete()  # as when the store has it
    told = r"127\.0\.0\.1:9 does not answer .*: 2 trials are taken as finished by the journal"
    dry_run = digitlab(*line, "seed=0,1", "--dry-run").out
    assert re.search(told, dry_run)
    assert dry_run.count("finished  by the sweep's journal") == 2
    assert "2 trials: 2 finished, 0 to run" in dry_run
    again = digitlab(*line, "seed=0,1")
    assert again.code == 0
    assert re.search(told, again.err)
    assert "2 trials, all ended before: 2 finished" in again.out
    assert list(all_records(project.records())) == []
    other = digitlab(*line, "seed=0,1,2")
    assert "does not answer" in other.err
    assert "what other sweeps have finished is not known" in other.err
    assert "3 finished" in other.err


def test_what_the_end_of_a_trial_could_not_deliver_the_end_of_its_sweep_does(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine so busy that the store takes longer than a trial waits."""
    monkeypatch.setattr(OpenRun, "close", lambda self: self.record.release())
    result = digitlab("sweep", *QUICK, "study=busy", "seed=0,1", "engine=sequential")
    assert result.code == 0, result.err
    _, trials = tree("busy")
    assert [run.status for run in trials] == ["FINISHED", "FINISHED"]
    assert any(f" {run.run_id[:8]} " in result.out for run in trials), "the table names the best"
    assert list(all_records(project.records())) == []


def test_settings_of_a_sweep_are_refused_by_a_single_run(digitlab: Cli) -> None:
    for setting in ("workers=2", "sweep=search", "sweep.repeats=3", "executor=inprocess"):
        result = digitlab("train", setting)
        assert result.code == 2
        assert "is for `digitlab sweep`" in result.err
