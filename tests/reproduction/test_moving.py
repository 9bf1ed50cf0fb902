"""Runs taken to another store: everything of them arrives, once, and nothing hostile does."""

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from digitlab.config import project
from digitlab.reproduction.archive import CHECKSUMS, packed_archive, read_recorded
from digitlab.tracking import leftovers, names
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.names import ABOUT_FILE
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun
from tests.support.cli import Cli

QUICK = ("epochs=2", "record.plots=never", "model=logistic_regression")
Move = Callable[[], None]


@pytest.fixture
def elsewhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """Work goes on in another project, with an empty store."""

    def move() -> None:
        other = tmp_path / "elsewhere"
        shutil.copytree(home / "conf", other / "conf")
        monkeypatch.setenv("DIGITLAB_HOME", str(other))

    return move


def the_run() -> StoredRun:
    (run,) = RunStore(resolve_uri(None)).runs()
    return run


def contents(run: StoredRun) -> dict[str, bytes]:
    store = RunStore(resolve_uri(None))
    return store.contents(run, [path for path, _ in store.artifacts(run)])


def changed(file: Path, **files: bytes | None) -> None:
    """The archive with these files, and sound checksums."""
    recorded = read_recorded(file)
    kept = {k: v for k, v in recorded.contents.items() if k != CHECKSUMS}
    for name, content in files.items():
        kept.pop(f"{name}.json", None)
        if content is not None:
            kept[f"{name}.json"] = content
    file.write_bytes(packed_archive(kept, recorded.run_id))


def test_a_run_arrives_whole_once_and_is_the_same(
    digitlab: Cli, tmp_path: Path, elsewhere: Move
) -> None:
    archive = str(tmp_path / "run.zip")
    digitlab("train", *QUICK, "study=mine")
    origin = the_run()
    digitlab("tag", origin.short_id, "owner=me")
    digitlab("note", origin.short_id, "The one for **table 2**")
    origin, files = the_run(), contents(origin)
    history = RunStore(resolve_uri(None)).history(origin, names.VALIDATION_LOSS)
    assert digitlab("export", origin.short_id, archive).code == 0
    assert "is here already" in digitlab("import", archive).out
    elsewhere()
    assert digitlab("import", archive).code == 0
    run = the_run()
    assert run.run_id != origin.run_id
    assert (run.name, run.study, run.status) == (origin.name, "mine", "FINISHED")
    assert (run.start_time, run.end_time) == (origin.start_time, origin.end_time)
    assert run.metrics == origin.metrics
    assert run.params == origin.params
    assert RunStore(resolve_uri(None)).history(run, names.VALIDATION_LOSS) == history
    arrived = contents(run)
    assert arrived.items() <= files.items()
    assert set(files) - set(arrived) == {names.PER_CLASS_FILE}
    assert run.tags["owner"] == "me"
    assert run.tags[names.NOTE_TAG].startswith("The one for **table 2**")
    assert run.tags[names.IMPORTED_TAG] == origin.run_id
    told = digitlab("import", archive)
    assert (told.code, len(RunStore(resolve_uri(None)).runs())) == (0, 1)
    assert f"is here already: {run.short_id}" in told.out
    assert list(project.mlruns().glob("importing-*")) == []
    assert digitlab("import", archive, "--verify").out.count("IDENTICAL") == 1


def test_an_archive_by_an_earlier_digitlab_and_a_bare_record_arrive(
    digitlab: Cli, tmp_path: Path, elsewhere: Move
) -> None:
    digitlab("train", *QUICK)
    origin = the_run()
    archive, bare = tmp_path / "run.zip", tmp_path / "record.json"
    digitlab("export", origin.short_id, str(archive))
    changed(archive, about=None)
    bare.write_bytes(contents(origin)["record.json"])
    elsewhere()
    for file in (archive, bare):
        assert digitlab("import", str(file)).code == 0
    for run in RunStore(resolve_uri(None)).runs():
        assert run.metrics[names.TEST_ACCURACY] == origin.metrics[names.TEST_ACCURACY]
        assert run.metrics[names.VALIDATION_LOSS] == origin.metrics[names.VALIDATION_LOSS]
        assert digitlab("reproduce", run.short_id).code == 0


def test_a_sweep_arrives_with_its_trials(digitlab: Cli, tmp_path: Path, elsewhere: Move) -> None:
    bundle = str(tmp_path / "sweep.zip")
    line = ("sweep", *QUICK, "executor=inprocess", "optimizer.learning_rate=0.01,0.02", "seed=0,1")
    assert digitlab(*line, "sweep.name=rates").code == 0
    (sweep,) = (folder.name for folder in project.sweeps().iterdir())
    expected = digitlab("compare", sweep, "--json").out
    assert "4 finished runs" in digitlab("export", sweep, bundle).out
    assert digitlab("export", sweep, str(tmp_path / "c.yaml")).code == 2
    elsewhere()
    assert digitlab("import", bundle).out.count("imported as") == 4
    assert digitlab("import", bundle).out.count("is here already") == 4
    runs = RunStore(resolve_uri(None)).runs()
    assert len(runs) == 5
    own = next(run for run in runs if run.is_parent)
    assert {run.tags.get(names.PARENT_TAG) for run in runs if run is not own} == {own.run_id}

    found = digitlab("compare", sweep, "--json")
    assert found.code == 0, found.err
    assert sorted(find_numbers(found.out)) == sorted(find_numbers(expected))
    assert digitlab("runs", "--sweep", sweep, "--json").out.count(names.TEST_ACCURACY) == 4


def test_a_trial_joins_no_sweep_that_was_made_here(digitlab: Cli, tmp_path: Path) -> None:
    bundle, line = str(tmp_path / "sweep.zip"), ("sweep", *QUICK, "executor=inprocess", "seed=0,1")
    assert digitlab(*line).code == 0
    (sweep,) = (folder.name for folder in project.sweeps().iterdir())
    digitlab("export", sweep, bundle)
    trial = next(run for run in RunStore(resolve_uri(None)).runs() if not run.is_parent)
    assert digitlab("rm", trial.short_id, "--yes", "--purge").code == 0
    assert digitlab("import", bundle).out.count("imported as") == 1
    runs = RunStore(resolve_uri(None)).runs()
    (imported,) = [run for run in runs if names.IMPORTED_TAG in run.tags]
    assert not {names.SWEEP_TAG, names.TRIAL_TAG, names.PARENT_TAG} & imported.tags.keys()


ABOUT = {"format": 1, "name": "a", "start_time": 1, "end_time": 2, "metrics": {}, "tags": {}}


@pytest.mark.parametrize(
    "about",
    [
        b"[]",
        b"[" * 100_000,
        *(
            json.dumps(ABOUT | change).encode()
            for change in (
                {"format": 2},
                {"name": "a\u202eb"},
                {"start_time": 3},
                {"tags": {"digitlab.fingerprint": "x"}},
                {"metrics": {"test/accuracy": float("nan")}},
                {"more": 1},
            )
        ),
    ],
)
def test_an_archive_that_says_what_it_may_not_is_refused(
    about: bytes, digitlab: Cli, tmp_path: Path, elsewhere: Move
) -> None:
    digitlab("train", *QUICK)
    archive = tmp_path / "run.zip"
    digitlab("export", the_run().short_id, str(archive))
    changed(archive, about=about)
    elsewhere()
    result = digitlab("import", str(archive))
    assert result.code == 3
    assert ABOUT_FILE in result.err
    assert "Traceback" not in result.err
    assert not (project.mlruns() / "mlflow.db").exists()


@pytest.mark.parametrize("name", ["../x.zip", "a/b.zip", "run.exe", ".zip"])
def test_a_bundle_of_anything_else_is_refused(name: str, digitlab: Cli, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        bundle.writestr("0a.zip", b"x")
        bundle.writestr(name, b"x")
    (tmp_path / "b.zip").write_bytes(packed.getvalue())
    result = digitlab("import", str(tmp_path / "b.zip"))
    assert result.code == 3
    assert "which is no run" in result.err


def test_what_a_kill_leaves_is_no_run_and_is_cleaned(
    digitlab: Cli, tmp_path: Path, elsewhere: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    digitlab("train", *QUICK)
    archive = str(tmp_path / "run.zip")
    digitlab("export", the_run().short_id, archive)
    elsewhere()
    with monkeypatch.context() as patch:
        patch.setattr("digitlab.reproduction.moving.importing._write_artifacts", _killed)
        with pytest.raises(Killed):
            digitlab("import", archive)
    assert digitlab("runs").out.startswith("no runs yet") or "no tracking store" in digitlab("runs").err
    monkeypatch.setattr(leftovers, "IN_USE_SECONDS", -1)
    digitlab("doctor", "--clean")
    assert list(project.mlruns().glob("importing-*")) == []
    assert digitlab("import", archive).code == 0


def find_numbers(text: str) -> list[str]:
    """Whatever the table shows that is no id."""
    return re.findall(r"-?\d+\.\d+", text)


class Killed(BaseException):
    pass


def _killed(*_: object) -> None:
    raise Killed
