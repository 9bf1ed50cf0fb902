"""The command line as a user meets it, in this process and in real ones."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import click
import psutil
import pytest
import requests
import yaml
from mlflow import MlflowClient

from digitlab import cli
from digitlab.cli import train, ui
from digitlab.cli.completion import complete_override
from digitlab.config import project
from digitlab.errors import TrackingError
from digitlab.runs import provenance
from digitlab.runs.interrupts import ONE_REQUEST_SECONDS
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.connection.sqlite_store import ensure_store
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.store import RunStore
from tests.support.cli import CHECKOUT, Cli, Start, files_end_at
from tests.support.processes import await_epochs

LONG_RUN = ["train", "model=cnn", "epochs=10000"]


def runs(digitlab: Cli) -> list[dict[str, object]]:
    return json.loads(digitlab("runs", "--json").out)  # type: ignore[no-any-return]


def test_a_run_is_trained_recorded_listed_and_shown(digitlab: Cli) -> None:
    line = ("epochs=3", "study=first", "optimizer.learning_rate=1e-2", "record.plots=auto")
    result = digitlab("train", *line)
    assert result.code == 0
    assert "test        accuracy" in result.out
    (run,) = runs(digitlab)
    assert run["status"] == "FINISHED"
    assert run["params"]["optimizer.learning_rate"] == 0.01  # type: ignore[index]
    assert run["params"]["run_name"] is None  # type: ignore[index]
    assert list(all_records(project.records())) == [], "delivered, so nothing is left"

    shown = json.loads(digitlab("show", str(run["run_id"])[:6], "--json").out)
    names = {artifact["path"] for artifact in shown["artifacts"]}
    assert names == {
        *("config.yaml", "model.json", "record.json", "metrics.csv", "per_class.csv"),
        "predictions.parquet",
        *("weights.safetensors", "learning_curves.png", "confusion_matrix.png", "worst_mistakes.png"),
    }
    assert [row["epoch"] for row in shown["epochs"]] == ["1", "2", "3"]
    assert sum(int(row["support"]) for row in shown["per_class"]) == 360
    for tag in ("data.train_images", "version", "commit", "dirty", "command", "host", "process.pid"):
        assert shown["tags"][f"digitlab.{tag}"]
    text = digitlab("show", str(run["run_id"])).out
    assert "logistic_regression adam lr=0.01 seed=0" in text
    assert "weights.safetensors" in text


def test_what_is_recorded_is_enough_to_compose_the_same_run(digitlab: Cli, tmp_path: Path) -> None:
    import mlflow

    from digitlab.config.checking import to_config
    from digitlab.config.composition import compose
    from digitlab.tracking.connection.location import resolve_uri

    overrides = ["model=cnn", "epochs=1", "scheduler=one_cycle", "seed=5"]
    digitlab("train", *overrides)
    (run,) = runs(digitlab)
    client = mlflow.MlflowClient(tracking_uri=resolve_uri(None))
    file = client.download_artifacts(str(run["run_id"]), "config.yaml", str(tmp_path))
    assert to_config(yaml.safe_load(Path(file).read_text())) == compose(overrides)


def test_predictions_and_confusion_matrix_are_those_of_the_saved_weights(
    digitlab: Cli, home: Path
) -> None:
    import pyarrow.parquet

    from digitlab.data.splits import load
    from digitlab.models.predict import predict
    from digitlab.models.saved import load_classifier
    from digitlab.training.evaluation import evaluate

    digitlab("train", "epochs=2", "study=weights", "model=cnn")
    (folder,) = (home / "mlruns" / "artifacts" / "weights").glob("*/artifacts")
    classifier = load_classifier(folder)
    dataset = load(classifier.config.data, home)
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    again = evaluate(predict(classifier.model, dataset.test), dataset.test.labels)
    assert table["prediction"] == again.predictions.tolist()
    assert table["label"] == dataset.test.labels.tolist()
    assert table["p3"] == pytest.approx(again.probabilities[:, 3].tolist(), abs=1e-6)


def test_the_same_command_gives_the_same_weights_in_another_process(
    digitlab: Cli, digitlab_process: Start, home: Path
) -> None:
    digitlab("train", "epochs=2", "model=cnn", "study=here")
    other = digitlab_process("train", "epochs=2", "model=cnn", "study=there", PYTHONHASHSEED="7")
    _, errors = other.communicate(timeout=120)
    assert other.returncode == 0, errors
    artifacts = home / "mlruns" / "artifacts"
    (here,) = (artifacts / "here").rglob("weights.safetensors")
    (there,) = (artifacts / "there").rglob("weights.safetensors")
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "epochs=0"], "epochs must be"),
        (["train", "device=cuda"], "device must be auto or cpu on this machine"),
        (["train", "-m", "seed=1,-1"], "seed must be"),
        (["config", "+foo=1"], "unknown knob foo"),
        (["show", "zzz"], "'zzz' is no run, sweep or study"),
        (["show", "abc"], "'abc' is no run, sweep or study"),
        (["runs", "--study", "nope"], "no study 'nope'"),
        (["runs", "model=cnn"], "only tracking=NAME"),
        (["nonsense"], "No such command"),
        (["train", "--epochs", "3"], "No such option '--epochs'. (knobs have no dashes: epochs=3)"),
        (["train", "study=it's mine"], "if its value is one text, quote it twice"),
        (["runs", "tracking.uri=./mlruns"], "MLflow no longer writes folders"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_exit_code_2(
    arguments: list[str], part: str, digitlab: Cli
) -> None:
    import torch

    if "device=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    ensure_store(project.mlruns() / "mlflow.db")
    result = digitlab(*arguments)
    assert result.code == 2
    assert part in result.err
    assert "Traceback" not in result.err
    assert "run_id" not in digitlab("runs", "--json").out


@pytest.mark.fault("F14")
def test_a_diverging_run_is_failed_with_epoch_and_step(digitlab: Cli) -> None:
    result = digitlab("train", "optimizer=sgd", "optimizer.learning_rate=1e38")
    assert result.code == 1
    assert "try a smaller optimizer.learning_rate" in result.err
    (run,) = runs(digitlab)
    assert run["status"] == "FAILED"
    tags = run["tags"]
    assert (tags["digitlab.diverged.epoch"], tags["digitlab.diverged.step"]) == ("1", "2")  # type: ignore[index]


@pytest.mark.fault("F6")
@pytest.mark.parametrize("moment", ["_write_first_artifacts", "evaluate"])
def test_an_exception_is_failed_with_its_traceback(
    moment: str, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(f"digitlab.runs.experiment.{moment}", broken)
    result = digitlab("train", "epochs=1")
    assert result.code == 1
    assert "RuntimeError: out of luck" in result.err
    (run,) = runs(digitlab)
    shown = json.loads(digitlab("show", str(run["run_id"]), "--json").out)
    assert shown["status"] == "FAILED"
    assert shown["tags"]["digitlab.error"] == "RuntimeError: out of luck"
    assert "in broken" in shown["traceback"]
    assert "out of luck" in digitlab("show", str(run["run_id"])).out


def test_a_place_that_cannot_be_written_is_named(digitlab: Cli, home: Path) -> None:
    (home / "mlruns").write_text("a file where a folder should be")
    result = digitlab("train", "epochs=1")
    assert result.code == 1
    assert f"no record can be written to {home / 'mlruns' / 'records'}" in result.err
    assert "Traceback" not in result.err


@pytest.mark.fault("F2", "F3")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_run_as_killed_within_a_step(
    number: signal.Signals, code: int, digitlab: Cli, digitlab_process: Start
) -> None:
    process = digitlab_process(*LONG_RUN, is_real=number == signal.SIGINT)
    await_epochs(process, 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    (run,) = runs(digitlab)
    assert run["status"] == "KILLED"
    assert run["metrics"]["train/loss"] > 0  # type: ignore[index]


@pytest.mark.fault("F2")
def test_signals_that_come_together_are_one_request(digitlab: Cli, digitlab_process: Start) -> None:
    """`timeout` signals its child and then the whole group, systemd TERM and HUP."""
    process = digitlab_process(*LONG_RUN)
    await_epochs(process, 2)
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (143, 129), errors
    (run,) = runs(digitlab)
    assert run["status"] == "KILLED"
    assert run["tags"]["digitlab.error"].startswith("stopped by SIG")  # type: ignore[index]


@pytest.mark.fault("F2", "F3")
def test_a_later_signal_ends_a_process_at_once() -> None:
    waiting = """
import time
from digitlab.runs.interrupts import Interrupts
with Interrupts() as interrupts, interrupts.deferred():
    print("ready", flush=True)
    while interrupts.signal_number is None:
        time.sleep(0.01)
    print("heard", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "heard\n"
    time.sleep(ONE_REQUEST_SECONDS)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=10)
    assert process.returncode == 129


@pytest.mark.fault("F1")
def test_a_run_killed_with_9_is_marked_by_the_next_command(
    digitlab: Cli, digitlab_process: Start
) -> None:
    process = digitlab_process(*LONG_RUN)
    await_epochs(process, 2)
    process.kill()
    process.wait()
    listed = digitlab("runs", "--json")
    assert "marked KILLED" in listed.err
    (run,) = json.loads(listed.out)
    assert (run["status"], run["delivered"]) == ("KILLED", True)
    assert run["metrics"]["train/loss"] > 0
    assert run["tags"]["digitlab.error"].startswith("the process died")


def test_a_live_run_is_shown_running_by_another_command(digitlab: Cli, digitlab_process: Start) -> None:
    process = digitlab_process(*LONG_RUN)
    await_epochs(process, 2)
    (run,) = runs(digitlab)
    assert run["status"] == "RUNNING"
    process.terminate()
    process.communicate(timeout=60)


def test_multirun_is_a_sweep(digitlab_process: Start, digitlab: Cli, home: Path) -> None:
    process = digitlab_process("train", "-m", "epochs=1", "seed=0,1", "study=many")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert sorted(run["params"]["seed"] for run in runs(digitlab)) == [0, 1]  # type: ignore[index]
    for run in runs(digitlab):
        command = run["tags"]["digitlab.command"]  # type: ignore[index]
        assert command.endswith("train -m epochs=1 seed=0,1 study=many"), "as it was typed"
    assert sorted(p.name for p in home.iterdir()) == ["conf", "mlruns"], "no outputs/ folder"
    assert not (CHECKOUT / "outputs").exists()


def test_early_stopping_and_the_best_weights(digitlab: Cli) -> None:
    # The accuracy cannot improve by more than 1, so the second epoch is the first stale one.
    settings = ["early_stopping.patience=3", "early_stopping.metric=validation/accuracy"]
    result = digitlab(
        "train", "epochs=50", *settings, "early_stopping.min_delta=1.1", "checkpoint.weights=best"
    )
    assert "stopped early after epoch 4: no better validation/accuracy in 3 epochs" in result.out
    (run,) = runs(digitlab)
    shown = json.loads(digitlab("show", str(run["run_id"]), "--json").out)
    assert len(shown["epochs"]) == 4
    losses = [float(row["validation/loss"]) for row in shown["epochs"]]
    assert losses == sorted(losses, reverse=True), "so the last is the best here"


def test_the_best_epochs_weights_are_tested(digitlab: Cli) -> None:
    """With a learning rate that ruins the model late, best and last weights differ."""
    ruin = ["optimizer=sgd", "optimizer.learning_rate=2", "epochs=12", "batch_size=16"]
    metric = "checkpoint.metric=validation/accuracy"
    result = digitlab("train", *ruin, "checkpoint.weights=best", metric)
    (run,) = runs(digitlab)
    shown = json.loads(digitlab("show", str(run["run_id"]), "--json").out)
    accuracies = [float(row["validation/accuracy"]) for row in shown["epochs"]]
    best = accuracies.index(max(accuracies)) + 1
    assert f"weights of epoch {best})" in result.out
    shown_validation = f"{100 * max(accuracies):.2f} %"
    assert f"validation  accuracy {shown_validation}" in result.out
    assert run["metrics"]["chosen/epoch"] == best  # type: ignore[index]
    assert shown_validation in digitlab("runs").out, "the table pairs it with the test of these weights"


def test_config_prints_what_would_run(digitlab: Cli) -> None:
    printed = yaml.safe_load(digitlab("config", "model=cnn", "seed=3").out)
    assert (printed["model"]["name"], printed["seed"]) == ("cnn", 3)
    sources = digitlab("config", "seed=3", "--sources").out
    assert "override seed=3" in sources
    assert "conf/optimizer/adam.yaml" in sources
    told = digitlab("config", "--knobs").out
    assert "a number > 0" in told
    assert "an integer in [1, 1000000]; now 64" in told, "what it is, without a word"
    assert "run_id" not in digitlab("runs", "--json").out


def test_the_table_shows_what_varies(digitlab: Cli) -> None:
    for seed in (0, 1):
        digitlab("train", "epochs=1", f"seed={seed}", "study=table")
    digitlab("train", "epochs=1", "model=cnn", "study=table")
    table = digitlab("runs", "--study", "table").out
    header = table.splitlines()[0].split()
    assert header == ["run", "status", "age", "model", "seed", "validation", "test"]
    assert table.count("FINISHED") == 3


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["train", "epochs=0", "+x=1"], 2), (["config"], 0)]
)
def test_help_and_config_errors_import_neither_torch_nor_mlflow(
    arguments: list[str], code: int, digitlab_process: Start
) -> None:
    program = (
        "import sys\nfrom digitlab.cli import main\n"
        f"try:\n    main({arguments!r})\n"
        f"except SystemExit as end:\n    assert (end.code or 0) == {code}\n"
        "print('LOADED', sorted({'torch', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout


def test_doctor_finds_a_healthy_place_healthy(digitlab: Cli) -> None:
    result = digitlab("doctor")
    assert result.code == 0, result.out
    assert {line.split()[0] for line in result.out.splitlines()} <= {"OK", "WARN"}
    for check in ("environment", "data digits", "tracking store", "runs that died", "disk"):
        assert re.search(f"^OK +{check}  ", result.out, re.MULTILINE), check


def test_doctor_names_a_damaged_record_and_a_dead_store(digitlab: Cli, home: Path) -> None:
    damaged = home / "mlruns" / "records" / "x"
    damaged.mkdir(parents=True)
    (damaged / "run.json").write_text("{")
    result = digitlab("doctor", "tracking.uri=http://127.0.0.1:9")
    assert result.code == 1
    assert re.search(f"^FAIL  records +.*{re.escape(str(damaged))}", result.out, re.MULTILINE)
    assert "127.0.0.1:9 does not answer" in result.out
    assert "start the server" in result.out


def test_doctor_says_once_that_a_store_lets_nobody_in(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str) -> None:
        raise TrackingError("it does not let you in")

    monkeypatch.setattr("digitlab.cli.doctor.open_store", refuse)
    assert digitlab("train", "epochs=1", "model=logistic_regression").code == 0
    result = digitlab("doctor")
    assert result.code == 1
    assert result.out.count("it does not let you in") == 1
    assert re.search("^WARN  runs that died +not looked for in the tracking store", result.out, re.M)


@pytest.mark.fault("F7")
def test_doctor_names_and_removes_what_crashes_have_left(digitlab: Cli, home: Path) -> None:
    records = home / "mlruns" / "records"
    (records / "made" / "artifacts").mkdir(parents=True)
    (records / "ended").mkdir()
    remains = [records / "made", home / "mlruns" / ".exact.json.4711.tmp"]
    young = home / "mlruns" / ".exact.json.4712.tmp"
    for file in (remains[1], young):
        file.write_text("{")
    (records / "ended" / "run.json").write_text("{")  # damaged: whoever reads it may still mend it
    for path in [*remains, records / "ended"]:
        os.utime(path, (0, 0))
    told = digitlab("doctor")
    assert told.code == 1
    assert all(str(path) in told.out for path in remains)
    assert "`digitlab doctor --clean` removes them" in told.out
    cleaned = digitlab("doctor", "--clean")
    assert all(f"removed {path}" in cleaned.err for path in remains)
    assert not any(path.exists() for path in remains)
    assert young.exists()
    assert (records / "ended" / "run.json").exists()


def test_a_clock_before_1970_is_told_and_the_run_delivered(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, real_gmtime = time.time, time.gmtime
    monkeypatch.setattr(time, "time", lambda: real() - 2e9 - real() // 1e9 * 1e9)
    monkeypatch.setattr(time, "gmtime", lambda s=None: real_gmtime(time.time() if s is None else s))
    trained = digitlab("train", "epochs=1")
    assert trained.code == 0, trained.err
    assert "this machine's clock is in 19" in trained.err
    assert "clock is in 19" in digitlab("doctor").out
    (run,) = runs(digitlab)
    assert (run["status"], run["delivered"]) == ("FINISHED", True)


BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("digitlab tr", ["train"]),
        ("digitlab train mod", ["model="]),
        ("digitlab train model=cnn model.ch", ["model.channels_1=", "model.channels_2="]),
        ("digitlab train model=c", ["cnn"]),
        ("digitlab train model=", ["cnn", "logistic_regression"]),
        ("digitlab train model=cnn model.hidden_u", ["model.hidden_units="]),
        ("digitlab train model=logistic_regression model.hidden_u", []),
        ("digitlab train experiment=cnn", ["cnn_best"]),
        ("digitlab train device=c", ["cpu", "cuda"]),
        ("digitlab train optimizer=adam optimizer.be", ["optimizer.beta_1=", "optimizer.beta_2="]),
        ("digitlab sweep model=cnn,", ["cnn,logistic_regression"]),
        ("digitlab sweep device=cuda,c", ["cuda,cpu"]),
        ("digitlab sweep model=cnn,logistic_regression,", []),
    ],
)
def test_tab_completes_subcommands_and_overrides_in_a_real_bash(
    line: str, expected: list[str], digitlab: Cli, tmp_path: Path
) -> None:
    found = press_tab(line, digitlab, tmp_path)
    assert found[: len(expected)] == expected
    if not expected:
        assert found == []


@pytest.mark.skipif(BASH is None, reason="no bash on this machine")
def test_tab_completes_ids_studies_and_files(digitlab: Cli, tmp_path: Path) -> None:
    assert press_tab("digitlab show ", digitlab, tmp_path) == [], "there is no store yet"
    digitlab("sweep", "epochs=1", "seed=0,1", "executor=inprocess", "study=complete")
    digitlab("train", "epochs=1", "study='two words; $(reboot)'")
    first, *others = [str(run["run_id"]) for run in runs(digitlab)]
    (own,) = (
        run for run in RunStore(resolve_uri(None)).all_runs("complete") if "trial" not in run.tags
    )
    sweep = own.tags["digitlab.sweep"]
    ids = [run_id[:8] for run_id in (first, *others, own.run_id)]
    assert sorted(press_tab("digitlab show ", digitlab, tmp_path)) == sorted([*ids, sweep])
    assert press_tab(f"digitlab export {first[:6]}", digitlab, tmp_path) == [first[:8]]
    assert press_tab(f"digitlab compare {ids[1]} comp", digitlab, tmp_path) == ["complete"]
    assert press_tab("digitlab runs --study ", digitlab, tmp_path) == ["complete"], "no shell commands"
    assert press_tab(f"digitlab report {sweep[:5]}", digitlab, tmp_path) == [sweep]
    assert press_tab(f"digitlab tag {first[:6]}", digitlab, tmp_path) == [first[:8]]
    for line in ("predict ffff ./pi", "reproduce ./pi", "export ffff pi", "train data.path=./pi"):
        assert press_tab(f"digitlab {line}", digitlab, tmp_path) == ["files"]


def test_files_complete_where_a_shell_does_not_split_at_the_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder"
    (folder / "digits").mkdir(parents=True)
    (folder / "digits.csv").touch()
    (folder / ".hidden").touch()
    monkeypatch.chdir(folder)

    def offered(word: str) -> list[str]:
        context = click.Context(cli.cli)
        (overrides,) = (each for each in train.train.params if each.name == "overrides")
        return [item.value for item in complete_override(context, overrides, word)]

    assert offered("data.path=dig") == ["data.path=digits/", "data.path=digits.csv"]
    assert offered("data.path=") == ["data.path=digits/", "data.path=digits.csv"]
    assert offered(f"data.path={folder}/digits.") == [f"data.path={folder}/digits.csv"]
    assert offered("data.path=nowhere/") == []


def press_tab(line: str, digitlab: Cli, tmp_path: Path) -> list[str]:
    """What a real bash is offered; `files` where it is told to offer its own."""
    script = tmp_path / "completion.bash"
    script.write_text(digitlab("completion", "bash").out)
    program = f"""
        compopt() {{ [[ $2 == default ]] && COMPREPLY=(files); }}
        source {shlex.quote(str(script))}
        COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
        # bash itself splits words at "=", which is in COMP_WORDBREAKS
        read -ra COMP_WORDS <<< "$(sed 's/=/ = /g' <<< "$COMP_LINE")"
        [[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _digitlab_completion digitlab
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert BASH is not None
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [BASH, "--norc", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path},
    )
    assert not done.stderr
    return done.stdout.split()


def test_the_ui_is_two_processes_answers_with_a_training_link_and_leaves_nothing(
    digitlab: Cli, digitlab_process: Start
) -> None:
    digitlab("train", "epochs=1", "study=shown")
    process = digitlab_process("ui", "--port", str(20_000 + os.getpid() % 10_000))
    assert process.stdout is not None
    link = process.stdout.readline().split()[1]
    assert "workflowType=machine_learning" in link
    assert "viewStateShareKey=digitlab" in link
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 1, [child.cmdline() for child in children]
    assert urllib.request.urlopen(link.partition("#")[0]).status == 200
    port = link.partition("#")[0].rpartition(":")[2].strip("/")
    second = digitlab("ui", "--port", port)
    assert second.code == 2
    assert f"port {port} is taken" in second.err
    process.terminate()
    process.wait(30)
    deadline = time.monotonic() + 20
    while any(child.is_running() for child in children):
        assert time.monotonic() < deadline, "the server outlived its command"
        time.sleep(0.1)


def test_the_ui_opens_a_run_or_a_sweep(digitlab: Cli, digitlab_process: Start) -> None:
    digitlab("sweep", "epochs=1", "seed=0,1", "executor=inprocess", "study=linked")
    runs = RunStore(resolve_uri(None)).all_runs("linked")
    own = next(run for run in runs if run.tags.get("digitlab.kind") == "sweep")
    sweep = own.tags["digitlab.sweep"]
    page = f"/#/experiments/{own.experiment_id}/runs"
    trial = next(run.run_id for run in runs if "trial" in run.tags)
    expected = {
        sweep[:5]: f"{page}?workflowType=machine_learning&viewStateShareKey={sweep}",
        own.run_id[:12]: f"{page}?workflowType=machine_learning&viewStateShareKey={sweep}",
        "seed": f"{page}?workflowType=machine_learning&viewStateShareKey={sweep}",  # its name
        trial[:12]: f"{page}/{trial}?workflowType=machine_learning",
    }
    for wanted, link in expected.items():
        told = ui._links_to(RunStore(resolve_uri(None)), wanted)("http://server")
        assert told.split()[1] == f"http://server{link}"
    process = digitlab_process("ui", trial[:12])
    assert process.stdout is not None
    assert process.stdout.readline().rstrip().endswith(expected[trial[:12]])
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert children
    assert alive == [], "the server ends with its command, however that ends"
    unknown = digitlab("ui", "0123abc")
    assert unknown.code == 2
    assert "'0123abc' is no run, sweep or study" in unknown.err
    assert "`digitlab sweeps` sweeps" in unknown.err
    assert digitlab("ui", "a", "b").code == 2
    assert digitlab("ui", sweep, "--study", "linked").code == 2


def test_square_brackets_and_colons_in_names_are_text(digitlab: Cli) -> None:
    name, sweep = "ckpt [/data/run1] :smile: [bold]", "x [/v3] [red]"
    assert digitlab("train", "epochs=1", f"run_name='{name}'", f"study='{name}'").code == 0
    assert (
        digitlab("sweep", "epochs=1", "seed=0,1", "executor=inprocess", f"sweep.name='{sweep}'").code
        == 0
    )
    (run,) = [run for run in runs(digitlab) if run["name"] == name]
    shown, listed = digitlab("show", run["run_id"]), digitlab("sweeps")
    assert shown.code == listed.code == 0
    assert shown.out.startswith(f"{name}  FINISHED  {run['run_id']}\nstudy {name}, started")
    assert sweep in listed.out
    assert digitlab("runs", "--study", name).code == 0


@pytest.mark.parametrize(
    "command", [("train",), ("sweep", "seed=0,1", "executor=inprocess"), ("doctor",)]
)
def test_a_checkout_that_git_refuses_is_told_once_with_the_remedy(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    known = (provenance.code, provenance.patch, provenance.unreadable_checkout)
    for one in known:
        one.cache_clear()
    result = digitlab(*command, *(("epochs=1",) if command != ("doctor",) else ()))
    for one in known:
        one.cache_clear()
    assert result.code == (command == ("doctor",))
    remedy = f"git config --global --add safe.directory {shlex.quote(str(CHECKOUT))}"
    told = [line for line in (result.out + result.err).splitlines() if remedy in line]
    assert len(told) == 1
    assert "dubious ownership" in told[0]
    assert "commit" in told[0]


def test_runs_shows_what_tells_runs_apart_and_says_what_it_leaves_out(digitlab: Cli) -> None:
    for study, name in (("one", "first"), ("two", "12e34")):
        assert digitlab("train", "epochs=1", f"study={study}", f"run_name={name}", "seed=3").code == 0
    assert digitlab("sweep", "epochs=1", "seed=0,1,2", "executor=inprocess", "study=one").code == 0
    found = runs(digitlab)
    pruned = str(found[0]["run_id"])
    client = MlflowClient(resolve_uri(None))
    client.set_terminated(pruned, "KILLED")
    client.set_tag(pruned, "digitlab.pruned.epoch", "1")
    listed = digitlab("runs")
    assert listed.out.split()[:8] == ["run", "status", "age", "study", "sweep", "name", "model", "seed"]
    assert listed.err == ""
    assert f"{pruned[:8]}  PRUNED" in listed.out
    assert "  PRUNED  " in digitlab("show", pruned).out
    assert json.loads(digitlab("show", pruned, "--json").out)["status"] == "PRUNED"
    some = digitlab("runs", "--limit", "4")
    assert len(some.out.splitlines()) == 5, "a sweep's own run is no run of the list"
    assert some.err == "the newest 4 runs: --page 2 shows the next, --limit N more\n"
    assert "study" not in digitlab("runs", "--study", "one").out
    params = dict(found[-2]["params"])  # type: ignore[call-overload]
    expected = {
        "seed": 3,
        "optimizer.learning_rate": 0.001,
        "data.order_seed": None,
        "run_name": "12e34",
    }
    assert {knob: params[knob] for knob in expected} == expected


def test_an_id_that_several_runs_start_with_lists_them(digitlab: Cli) -> None:
    digitlab("sweep", "epochs=1", f"seed={','.join(map(str, range(17)))}", "executor=inprocess")
    several = [str(run["run_id"]) for run in runs(digitlab)]
    digit = next(d for d in "0123456789abcdef" if sum(i.startswith(d) for i in several) > 1)
    told = digitlab("show", digit)
    assert told.code == 2
    for run_id in several:
        line = rf"digitlab:   {run_id[:12]}  seed=\d+  \(\d+ \w+ ago\)"
        assert bool(re.search(line, told.err)) == run_id.startswith(digit)


def test_what_another_wrote_into_the_store_is_shown_and_never_obeyed(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b[2J\x9b31m\x07\u202ename\r\x00"
    assert digitlab("train", "epochs=1").code == digitlab("train", "epochs=1", "seed=1").code == 0
    client, mine = MlflowClient(resolve_uri(None)), [str(run["run_id"]) for run in runs(digitlab)]
    for run_id in mine:
        client.set_tag(run_id, "mlflow.runName", evil)
        for tag in ("error", "commit", "host", "verdict", "reproduces", "sweep.name", "class"):
            client.set_tag(run_id, f"digitlab.{tag}", evil + run_id)
    client.rename_experiment(str(runs(digitlab)[0]["experiment_id"]), evil)
    told = [
        *(digitlab(command) for command in ("runs", "doctor")),
        *(digitlab(command, mine[0]) for command in ("show", "reproduce")),
        *(digitlab("compare", *mine, *form) for form in ([], ["--diff"], ["--csv"], ["--markdown"])),
        *(digitlab("compare", evil), digitlab("runs", "--study", "none"), digitlab("show", evil)),
    ]
    for result in told:
        assert not {c for c in result.out + result.err if not c.isprintable() and c != "\n"}
        assert "Traceback" not in result.err
    assert r"\x1b[2J\x9b31m\x07\u202ename\r\x00" in told[2].out
    monkeypatch.setenv("FORCE_COLOR", "1")  # the styles of rich are ours, also where there are colours
    obeyed = digitlab("show", mine[0]).out
    assert "\x1b[1m" in obeyed
    assert not re.search("\x1b\\[2J|\x9b|\x07|\u202e", obeyed)


def test_bare_it_shows_the_help(digitlab: Cli) -> None:
    result = digitlab()
    assert (result.code, result.err) == (0, "")
    assert result.out == digitlab("--help").out


def test_loopback_never_goes_through_a_proxy(digitlab: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("no_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    digitlab("--version")
    for host in ("127.0.0.1:5000", "localhost", "intranet.example"):
        assert urllib.request.proxy_bypass(host)
        assert not requests.utils.get_environ_proxies(f"http://{host}/")
    assert not urllib.request.proxy_bypass("elsewhere.example")


REFUSALS = {
    OSError(28, "No space left on device", "/x/y"): "/x/y: No space left on device",
    MemoryError(): "there is not enough memory",
    RuntimeError("can't start new thread"): "the system gives no more: can't start new thread",
    ImportError("libtorch.so: failed to map segment"): "the system gives no more: libtorch.so",
    EOFError(): "a file or a process that was being read ended too early",
    BrokenPipeError(32, "Broken pipe"): "Broken pipe",
}


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_what_the_machine_refuses_is_one_line_and_no_success(
    error: Exception, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digitlab.cli.train.run_config", failing(error))
    result = digitlab("train")
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith(f"digitlab: {REFUSALS[error]}")


def test_a_fault_of_ours_keeps_its_traceback(digitlab: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digitlab.cli.train.run_config", failing(KeyError("x")))
    with pytest.raises(KeyError):
        digitlab("train")


def test_the_signal_that_a_library_sends_for_want_of_threads_is_not_ctrl_c(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digitlab.cli.train.run_config", failing(KeyboardInterrupt()))
    assert digitlab("train").code == 130
    monkeypatch.setattr("threading.Thread.start", failing(RuntimeError("can't start new thread")))
    result = digitlab("train")
    assert (result.code, result.err) == (1, "digitlab: the system gives no more threads (ulimit -u)\n")


@pytest.mark.parametrize("command", ["sweep seed=0,1 epochs=1", "train epochs=1"])
def test_what_cannot_be_written_is_told_with_its_file(command: str, digitlab: Cli, home: Path) -> None:
    with files_end_at(1000):
        result = digitlab(*command.split())
    assert result.code == 1
    told = [line for line in result.err.splitlines() if line.startswith("digitlab: ")]
    assert len(told) == 1
    assert "File too large" in told[0]
    assert str(home / "mlruns") in told[0]
    assert "Traceback" not in result.err


def test_the_traceback_is_named_where_there_is_one(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digitlab.runs.experiment.evaluate", failing(RuntimeError("boom")))
    result = digitlab("train", "epochs=1")
    assert result.code == 1
    assert "the run failed: RuntimeError: boom; its record holds the traceback" in result.err
    assert "boom" in digitlab("show", str(runs(digitlab)[0]["run_id"])).out
    monkeypatch.setattr("digitlab.runs.describe.prepare_process", failing(MemoryError()))
    result = digitlab("train", "epochs=1")
    assert result.err == "digitlab: the run failed: there is not enough memory\n"
    monkeypatch.setattr("digitlab.runs.describe.prepare_process", failing(RuntimeError("boom")))
    with pytest.raises(RuntimeError, match="boom"):
        digitlab("train", "epochs=1")


def test_an_export_never_replaces_a_pipe_or_a_device(digitlab: Cli, tmp_path: Path) -> None:
    assert digitlab("train", "epochs=1", "record.plots=never").code == 0
    run_id = str(runs(digitlab)[0]["run_id"])
    os.mkfifo(tmp_path / "pipe")
    for file, told in (("pipe", "is no regular file"), ("no/folder", "No such file or directory")):
        result = digitlab("export", run_id, str(tmp_path / file))
        assert (result.code, result.err) == (1, f"digitlab: {tmp_path / file}: {told}\n")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("command", ["show", "export", "reproduce", "resume", "compare"])
def test_an_id_of_any_length_is_one_line(command: str, digitlab: Cli, tmp_path: Path) -> None:
    assert digitlab("train", "epochs=1", "record.plots=never").code == 0
    more = [str(tmp_path / "x.zip")] if command == "export" else []
    result = digitlab(command, "a" * 5000, *more)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert len(line) < 1100


def test_a_configuration_that_is_no_text_is_named(digitlab: Cli, home: Path) -> None:
    for name, command in (("model/cnn", "train model=cnn"), ("config", "sweep seed=0,1")):
        file = home / "conf" / f"{name}.yaml"
        file.write_bytes(b"\xff\xfe\x00")
        result = digitlab(*command.split())
        assert result.code == 2
        assert f"digitlab: {file} is no text in UTF-8" in result.err.splitlines()
        shutil.copy(CHECKOUT / "conf" / f"{name}.yaml", file)


def test_output_that_nobody_takes() -> None:
    program = [sys.executable, "-m", "digitlab.cli", "completion", "bash"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "digitlab: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)  # `digitlab runs | head`
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_variable_of_mlflows_that_chooses_nothing_here_is_said(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (["train", "epochs=1"], ["sweep", "seed=0,1", "--dry-run"]):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "x")
        told = digitlab(*command).err
        assert "MLFLOW_EXPERIMENT_NAME has no effect: study=NAME names the experiment" in told
