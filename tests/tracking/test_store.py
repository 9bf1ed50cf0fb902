"""Where a store lies and what it takes: moved, missing, closed to writers, another MLflow's."""

import io
import json
import os
import shlex
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from digitlab import cli
from digitlab.cli import doctor
from digitlab.config import project
from digitlab.errors import DigitlabError, TrackingError
from digitlab.runs.experiment import OpenRun
from digitlab.tracking.connection import sqlite_store
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.connection.relocation import present_address
from digitlab.tracking.connection.sqlite_store import ensure_store
from digitlab.tracking.names import RECORD_FILE
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.store import RunStore
from tests.support.cli import CHECKOUT, Cli, Result, artifact
from tests.support.run_folders import new_record

ONE = ("train", "epochs=1", "record.plots=never")
RUN = "0123456789abcdef0123456789abcdef"


def deliver(uri: str, study: str = "s", **changes: object) -> str:
    """A finished run with one artifact; returns its id."""
    record = new_record(project.records(), study=study, tracking_uri=uri, **changes)
    (record.artifacts / "config.yaml").write_text("seed: 0\n")
    record.finish("FINISHED")
    RunStore(uri).deliver(record)
    assert record.delivered.run_id is not None
    return record.delivered.run_id


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def execute(file: Path, statement: str, *values: object) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(file)) as store, store:
        return list(store.execute(statement, values))


@pytest.fixture
def move_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    def move() -> Path:
        there = tmp_path / "moved here"
        home.rename(there)
        monkeypatch.setenv("DIGITLAB_HOME", str(there))
        return there

    return move


# --- moved ---


def test_a_project_that_was_moved_has_all_it_had(
    home: Path, tmp_path: Path, move_home: Callable[[], Path], digitlab: Cli
) -> None:
    assert digitlab(*ONE, "study=before").code == 0
    (run,) = RunStore(f"sqlite:///{home / 'mlruns' / 'mlflow.db'}").runs()
    assert digitlab("promote", run.short_id, "digits@champion").code == 0
    there = move_home()
    picture = tmp_path / "seven.png"
    _draw(picture)
    for words in (
        ("predict", run.short_id, str(picture)),
        ("predict", "digits@champion", str(picture)),
        ("show", run.short_id),
        ("show", run.short_id, "--plots"),
        ("export", run.short_id, str(tmp_path / "run.zip")),
        ("compare", run.short_id),
    ):
        result = digitlab(*words)
        assert result.code == 0, (words, result.err)
        assert str(home) not in result.out + result.err
    assert digitlab(*ONE, "study=before", "seed=1").code == 0
    assert not home.exists(), "nothing is made where it was"
    assert len(list((there / "mlruns" / "artifacts" / "before").glob("*/artifacts/config.yaml"))) == 2


def test_doctor_says_that_a_store_was_moved_and_mends_it_for_mlflow(
    home: Path, move_home: Callable[[], Path], digitlab: Cli
) -> None:
    run_id = deliver(f"sqlite:///{home / 'mlruns' / 'mlflow.db'}")
    there = move_home()
    said = digitlab("doctor").out
    assert "which was moved; mended" in said
    assert str(home) in said
    from mlflow.client import MlflowClient

    client = MlflowClient(f"sqlite:///{there / 'mlruns' / 'mlflow.db'}")
    assert [item.path for item in client.list_artifacts(run_id)] == ["config.yaml"]
    assert "moved" not in digitlab("doctor").out.replace(str(there), "")


def test_a_run_that_was_cut_short_goes_on_into_the_store_that_was_moved(
    home: Path, move_home: Callable[[], Path], digitlab: Cli
) -> None:
    uri = f"sqlite:///{home / 'mlruns' / 'mlflow.db'}"
    record = new_record(project.records(), tracking_uri=uri, is_resumable=True)
    RunStore(uri).deliver(record)
    record.finish("KILLED")
    record.release()
    there = move_home()
    moved = f"sqlite:///{there / 'mlruns' / 'mlflow.db'}"
    shutil.copytree(there, home)  # another project, where this one was
    (waiting,) = all_records(project.records())
    assert waiting.run.tracking_uri == moved
    assert digitlab("sync").code == 0
    assert [run.status for run in RunStore(moved).runs()] == ["KILLED"]
    assert execute(home / "mlruns" / "mlflow.db", "SELECT status FROM runs") == [("RUNNING",)]


def test_a_sweep_that_was_moved_is_the_same_sweep(move_home: Callable[[], Path], digitlab: Cli) -> None:
    sweep = ("sweep", "seed=0,1", "epochs=1", "executor=inprocess", "record.plots=never")
    assert digitlab(*sweep).code == 0
    there = move_home()
    again = digitlab(*sweep)
    assert "all ended before: 2 finished" in again.out, again.err
    assert len(list((there / "mlruns" / "sweeps").iterdir())) == 1


def test_a_copy_has_artifacts_of_its_own(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = deliver(f"sqlite:///{home / 'mlruns' / 'mlflow.db'}")
    before = contents(home / "mlruns")
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    monkeypatch.setenv("DIGITLAB_HOME", str(copy))
    uri = f"sqlite:///{copy / 'mlruns' / 'mlflow.db'}"
    new = deliver(uri)
    assert contents(home / "mlruns") == before
    for run_id in (old, new):
        assert RunStore(uri).find(run_id).artifact_uri.startswith((copy / "mlruns").as_uri())


def test_an_address_that_somebody_chose_stays(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'here' / 'mlflow.db'}"
    chosen = tmp_path / "big disk" / "artifacts"
    (chosen / "study").mkdir(parents=True)
    for address in (
        (chosen / "study").as_uri(),
        (chosen / "study" / RUN / "artifacts").as_uri(),
        f"s3://bucket/artifacts/study/{RUN}/artifacts",
        f"mlflow-artifacts:/1/{RUN}/artifacts",
        f"/mnt/runs/study/{RUN}/artifacts",
    ):
        assert present_address(uri, address) == address
    gone = tmp_path / "gone" / "artifacts" / "a study" / RUN / "artifacts"
    beside = tmp_path / "here" / "artifacts" / "a study" / RUN / "artifacts"
    assert present_address(uri, gone.as_uri()) == beside.as_uri()
    assert present_address(uri, f"{gone.as_uri()}/model") == f"{beside.as_uri()}/model"


def test_only_the_database_was_copied(tmp_path: Path) -> None:
    run_id = deliver(f"sqlite:///{tmp_path / 'a' / 'mlflow.db'}")
    (tmp_path / "backup").mkdir()
    copy = shutil.copy(tmp_path / "a" / "mlflow.db", tmp_path / "backup" / "mlflow.db")
    store = RunStore(f"sqlite:///{copy}")
    assert store.artifacts(store.find(run_id)) == [("config.yaml", 8)], "they are where they were"


@pytest.mark.parametrize("is_of_an_earlier_version", [False, True])
def test_the_study_default_has_its_artifacts_in_its_own_project(
    is_of_an_earlier_version: bool, tmp_path: Path
) -> None:
    file = tmp_path / "here" / "mlflow.db"
    ensure_store(file)
    other = tmp_path / "other" / "mlruns"
    if is_of_an_earlier_version:  # its address was that of the project in which a template was made
        ensure_store(other / "mlflow.db")
        execute(file, "UPDATE experiments SET artifact_location = ?", str(other / "0"))
    before = contents(tmp_path / "other")
    deliver(f"sqlite:///{file}", study="Default")
    (made,) = [made for made in tmp_path.rglob("config.yaml") if made.parent.name == "artifacts"]
    assert made.is_relative_to(tmp_path / "here" / "artifacts")
    assert contents(tmp_path / "other") == before


def _draw(file: Path) -> None:
    from PIL import Image, ImageDraw

    picture = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(picture).line((10, 10, 50, 10, 25, 50), fill=0, width=6)
    picture.save(file)


# --- missing ---


@pytest.mark.parametrize(
    "words",
    [  # doctor's is asked below
        ("runs",),
        ("show", "abcd"),
        ("compare", "abcd"),
        ("report", "abcd"),
        ("predict", "abcd", "picture.png"),
        ("predict", "digits@champion", "picture.png"),
        ("reproduce", "abcd"),
        ("export", "abcd", "run.zip"),
        ("promote", "abcd", "digits"),
        ("ui",),
        ("sweep", "--dry-run", "seed=0,1"),
        ("resume", "abcd"),
        ("sync",),
    ],
)
@pytest.mark.parametrize("state", ["missing", "empty", "another program's"])
def test_what_looks_never_makes_a_store(
    words: tuple[str, ...],
    state: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    digitlab: Cli,
) -> None:
    monkeypatch.chdir(tmp_path)
    _draw(tmp_path / "picture.png")
    file = tmp_path / "typo" / "dir" / "x.db"
    if state != "missing":
        file.parent.mkdir(parents=True)
        file.touch()
    if state == "another program's":
        execute(file, "CREATE TABLE songs (title TEXT)")
    before = contents(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    result = digitlab(*words)
    expected = {"sweep": 0, "sync": 0, "resume": 2}.get(words[0], 4)
    assert result.code == expected, result.err
    if expected == 4:
        assert "no tracking store" in result.err
        assert str(file) in result.err
    assert file.parent.exists() == (state != "missing")
    assert contents(tmp_path) == before
    with pytest.raises(DigitlabError, match="no tracking store"):
        doctor._tracking(f"sqlite:///{file}")


def test_runs_that_no_store_has_yet_are_listed_without_one(home: Path, digitlab: Cli) -> None:
    uri = f"sqlite:///{home / 'mlruns' / 'mlflow.db'}"
    new_record(project.records(), name="the first", tracking_uri=uri)
    result = digitlab("runs")
    assert result.code == 0
    assert "RUNNING" in result.out
    assert "on this disk only" in result.err
    assert not (home / "mlruns" / "mlflow.db").exists()


def test_another_programs_database_is_never_written_to(tmp_path: Path, digitlab: Cli) -> None:
    file = tmp_path / "songs.db"
    execute(file, "CREATE TABLE songs (title TEXT)")
    before = file.read_bytes()
    result = digitlab(*ONE, f"tracking.uri=sqlite:///{file}")
    assert result.code == 4
    assert "no tracking store" in result.err
    assert file.read_bytes() == before
    assert list(all_records(project.records())) == []


# --- closed to writers ---


def run_bound_by_permissions(*commands: list[str]) -> list[Result]:
    """The command line in a process that file permissions bind even if it is root's."""
    program = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n"
        "from tests.tracking.test_store import run_all\n"
    )
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*drop, sys.executable, "-c", f"{program}run_all({commands!r})"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [Result(**values) for values in json.loads(done.stdout)]


def run_all(commands: list[list[str]]) -> None:
    results = []
    for words in commands:
        out, err = io.StringIO(), io.StringIO()
        code = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                cli.main(words)
            except SystemExit as end:
                code = int(end.code or 0)
        results.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
    print(json.dumps(results))


def test_what_can_only_be_read_is_read_and_never_trained_for(
    home: Path, tmp_path: Path, digitlab: Cli
) -> None:
    assert digitlab("sweep", "seed=0,1", "epochs=1", "executor=inprocess").code == 0
    runs = RunStore(f"sqlite:///{home / 'mlruns' / 'mlflow.db'}").runs()
    run = next(run for run in runs if "sweep" in run.tags)
    cut = new_record(project.records(), tracking_uri=resolve_uri(None), is_resumable=True)
    shutil.copy(artifact(run.artifact_uri, RECORD_FILE), cut.artifacts)
    cut.finish("KILLED")
    cut.release()
    _draw(tmp_path / "seven.png")
    (sweep,) = (home / "mlruns" / "sweeps").iterdir()
    before = contents(home)
    reading = [
        ["runs"],
        ["show", run.short_id],
        ["sweeps"],
        ["compare", sweep.name],
        ["report", sweep.name, "-o", str(tmp_path / "report")],
        ["predict", run.short_id, str(tmp_path / "seven.png")],
        ["export", run.short_id, str(tmp_path / "run.zip")],
    ]
    writing = [
        ["train", "epochs=1000000"],
        ["sweep", "seed=2,3", "epochs=1000000"],
        ["sweep", "seed=0,1", "epochs=1", "--rerun"],
        ["resume", cut.run.record_id],
    ]
    elsewhere = f"tracking.uri=sqlite:///{tmp_path / 'other.db'}"
    recording = [
        ["train", "epochs=1000000", elsewhere],
        ["sweep", "seed=2,3", "epochs=1000000", elsewhere],
    ]
    closed = [home / "mlruns", *(path for path in (home / "mlruns").rglob("*"))]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in closed}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        results = run_bound_by_permissions(*reading, *writing, *recording)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    for words, result in zip(reading, results, strict=False):
        assert result.code == 0, (words, result.err)
    for words, result in zip(writing + recording, results[len(reading) :], strict=True):
        assert result.code == (1 if words in recording else 4), (words, result)
        assert result.err.count("can only be read") == 1, (words, result.err)
        assert "stays on this disk" not in result.err
    assert contents(home) == before


# --- what was deleted in it ---


def test_a_deleted_run_is_told_with_the_way_back(tmp_path: Path, digitlab: Cli) -> None:
    uri = f"sqlite:///{tmp_path / 'store.db'}"
    run_id = deliver(uri)
    RunStore(uri)._client.delete_run(run_id)
    for words in (("show", run_id[:8]), ("compare", run_id[:8]), ("export", run_id[:8], "x.zip")):
        result = digitlab(*words, "--tracking-uri", uri)
        assert result.code == 4
        told = f"MLFLOW_TRACKING_URI={shlex.quote(uri)} digitlab restore {run_id[:8]}"
        assert told in result.err


def test_a_sweep_whose_own_run_was_deleted_is_told_before_it_trains(digitlab: Cli) -> None:
    sweep = ("sweep", "seed=0,1", "epochs=1", "executor=inprocess", "record.plots=never")
    assert digitlab(*sweep).code == 0
    store = RunStore(resolve_uri(None))
    own = next(run for run in store.runs() if "digitlab.sweep" in run.tags)
    store._client.delete_run(own.run_id)
    said = digitlab("compare", own.tags["digitlab.sweep"])
    assert said.code == 4
    assert f"digitlab restore {own.run_id[:8]}" in said.err
    assert "all ended before" in digitlab(*sweep).out, "there is nothing left to train for it"


@pytest.mark.parametrize("deleted", ["own run", "trial"])
def test_a_sweep_that_was_cut_short_goes_on_only_if_the_store_still_takes_it(
    deleted: str, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = ("sweep", "seed=0,1", "epochs=2", "executor=inprocess", "engine=sequential")
    with monkeypatch.context() as patch:
        patch.setattr(OpenRun, "after_epoch", _press_ctrl_c)
        assert digitlab(*sweep).code == 130
    store = RunStore(resolve_uri(None))
    runs = store.runs()
    (run,) = [run for run in runs if ("digitlab.sweep" in run.tags) == (deleted == "own run")]
    store._client.delete_run(run.run_id)
    before = contents(project.mlruns())
    result = digitlab("resume", next(iter(project.sweeps().iterdir())).name)
    assert result.code == 4
    assert f"digitlab restore {run.run_id[:8]}" in result.err
    assert contents(project.records()) == {
        name: content for name, content in before.items() if name.startswith(str(project.records()))
    }
    store._client.restore_run(run.run_id)
    assert digitlab("resume", next(iter(project.sweeps().iterdir())).name).code == 0


def _press_ctrl_c(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)  # during the step that follows


def test_a_run_that_was_cut_short_and_deleted_is_told_before_it_trains(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(OpenRun, "after_epoch", _press_ctrl_c)
        assert digitlab("train", "epochs=2").code == 130
    store = RunStore(resolve_uri(None))
    (run,) = store.runs()
    store._client.delete_run(run.run_id)
    result = digitlab("resume", run.short_id)
    assert result.code == 4
    assert f"digitlab restore {run.run_id[:8]}" in result.err
    assert "epoch 1/2" not in result.err
    store._client.restore_run(run.run_id)
    assert digitlab("resume", run.short_id).code == 0


def test_a_run_that_waits_and_was_deleted_is_told_by_sync(digitlab: Cli) -> None:
    record = new_record(project.records(), tracking_uri=resolve_uri(None))
    store = RunStore(resolve_uri(None))
    store.deliver(record)
    store._client.delete_run(record.delivered.run_id)
    record.finish("FINISHED")
    record.release()
    result = digitlab("sync")
    assert result.code == 4
    assert f"digitlab restore {record.delivered.run_id[:8]}" in result.err


def test_a_deleted_study_is_told_before_training(digitlab: Cli) -> None:
    deliver(resolve_uri(None), study="gone")
    store = RunStore(resolve_uri(None))
    experiment_id = store.experiment_id("gone")
    store._client.delete_experiment(experiment_id)
    for words in (("train",), ("sweep", "seed=0,1")):
        result = digitlab(*words, "study=gone", "epochs=1000000")
        assert result.code == 4
        assert "digitlab restore gone" in result.err
    assert list(all_records(project.records())) == []


# --- another MLflow's ---


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        (
            "ffffffffffff",
            r"written by a newer MLflow than the installed MLflow \d.*install the newer one",
        ),
        ("0a8213491aaa", r"written by an older MLflow than the installed MLflow \d.*mlflow db upgrade"),
    ],
)
def test_which_mlflow_is_newer_is_said(revision: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    ensure_store(file)
    execute(file, "UPDATE alembic_version SET version_num = ?", revision)
    before = file.read_bytes()
    with pytest.raises(TrackingError, match=said):
        RunStore(f"sqlite:///{file}").runs()
    assert file.read_bytes() == before


# --- its template ---


def test_a_template_is_taken_from_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment nor the cache belongs to this user alone."""
    planted, cache = tmp_path / "env" / "share" / "digitlab", tmp_path / "cache" / "digitlab"
    ours = sqlite_store.ensure_template()
    assert ours is not None
    for folder in (planted, cache):
        folder.mkdir(parents=True)
        shutil.copy(ours, folder / ours.name)
        execute(folder / ours.name, "UPDATE experiments SET name = 'planted'")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    planted.chmod(0o777)  # another user can write here
    if os.getuid() == 0:
        os.chown(cache, 65534, -1)  # this is another user's
    else:
        cache.chmod(0o777)
    assert sqlite_store.ensure_template() is None
    ensure_store(tmp_path / "store.db")
    assert execute(tmp_path / "store.db", "SELECT name FROM experiments") == [("Default",)]
    planted.chmod(0o755)
    assert sqlite_store.ensure_template() == planted / ours.name, "so far only this user could write"


def test_a_long_study_is_read_page_by_page(monkeypatch: pytest.MonkeyPatch, digitlab: Cli) -> None:
    """Each is a request of its own to the store, within its own limit of time."""
    line = ["sweep", "epochs=1", "seed=range(5)", "executor=inprocess", "study=long"]
    assert digitlab(*line).code == 0
    store = RunStore(resolve_uri(None))
    whole = {run.run_id for run in store.all_runs("long")}
    monkeypatch.setattr("digitlab.tracking.store.PAGE_RUNS", 2)
    assert {run.run_id for run in store.all_runs("long")} == whole
    sizes, page = [], ""
    while page or not sizes:
        runs, page = store.finished("long", page)
        sizes.append(len(runs))
    assert sizes == [2, 2, 1]
    assert store.finished("unknown") == ([], "")
