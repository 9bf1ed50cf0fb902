"""Room made: what is removed, what stays because something needs it, and the way back."""

import dataclasses
import json
from pathlib import Path

import pytest

from digitlab.tracking import names
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.removal import trash
from digitlab.tracking.removal.trash import Trash
from digitlab.tracking.store import RunStore
from tests.support.cli import Cli
from tests.support.run_folders import new_record

DAY = 24 * 3_600_000


def deliver(name: str, *, study: str = "old", days: int = 0, failed: bool = False, **tags: str) -> str:
    """A run of that many days ago with one artifact of a megabyte; returns its id."""
    uri = resolve_uri(None)
    record = new_record(
        Path(uri.removeprefix("sqlite:///")).parent / "records",
        study=study,
        name=name,
        tracking_uri=uri,
        tags={key.replace("__", "."): value for key, value in tags.items()},
    )
    record.run.start_time -= days * DAY
    accuracy = float(name.split()[1]) / 100
    record.log_metrics({names.CHOSEN_ACCURACY: accuracy, names.TEST_ACCURACY: 1 - accuracy}, 1)
    (record.artifacts / "weights.safetensors").write_bytes(bytes(1_000_000))
    record.finish("FAILED" if failed else "FINISHED")
    record.run.end_time = record.run.start_time
    record.save()
    RunStore(uri).deliver(record)
    assert record.delivered.run_id
    return record.delivered.run_id


def there() -> list[str]:
    return sorted(run.name for run in RunStore(resolve_uri(None)).runs())


def artifacts(home: Path) -> set[str]:
    return {folder.name for folder in home.glob("mlruns/artifacts/*/*/")}


def said(digitlab: Cli, *line: str, code: int = 0) -> str:
    result = digitlab(*line)
    assert result.code == code, result.err
    return result.out + result.err


def test_nothing_goes_without_yes_and_all_comes_back_until_it_is_purged(
    home: Path, digitlab: Cli
) -> None:
    first, second = deliver("run 1"), deliver("run 2")
    assert "run 1" in said(digitlab, "rm", first[:8])
    assert there() == ["run 1", "run 2"]
    assert "digitlab restore" in said(digitlab, "rm", first[:8], "--yes")
    assert there() == ["run 2"]
    assert artifacts(home) == {first, second}, "until it is purged"
    assert "back" in said(digitlab, "restore", first[:8])
    assert there() == ["run 1", "run 2"]
    said(digitlab, "rm", first[:8], "--yes")
    database = home / "mlruns" / "mlflow.db"
    before = database.stat().st_size
    assert "1.0 MB" in said(digitlab, "gc", "--purge", "--yes")
    assert artifacts(home) == {second}
    assert database.stat().st_size <= before
    said(digitlab, "restore", first[:8], code=2)


def test_a_study_goes_and_comes_back_whole(digitlab: Cli) -> None:
    for number in range(3):
        deliver(f"run {number}", study="mine")
    deliver("run 9")
    said(digitlab, "rm", "mine", "--yes")
    assert there() == ["run 9"]
    assert RunStore(resolve_uri(None)).studies() == ["old"]
    said(digitlab, "restore", "mine")
    assert len(there()) == 4
    said(digitlab, "rm", "mine", "--yes", "--purge")
    deliver("run 5", study="mine")  # its name is free again
    assert there() == ["run 5", "run 9"]


def test_a_purge_leaves_alone_what_else_was_removed(home: Path, digitlab: Cli) -> None:
    """`mlflow gc --run-ids` purges every removed study, too."""
    kept, gone = deliver("run 1", study="kept"), deliver("run 2")
    said(digitlab, "rm", "kept", "--yes")
    said(digitlab, "rm", gone[:8], "--yes", "--purge")
    assert artifacts(home) == {kept}
    said(digitlab, "restore", "kept")
    assert there() == ["run 1"]


def test_what_a_model_or_a_reproduction_needs_stays(home: Path, digitlab: Cli) -> None:
    promoted, recorded = deliver("run 1"), deliver("run 2")
    repeated = deliver("run 3", digitlab__reproduces=recorded)
    client = RunStore(resolve_uri(None))._client
    client.create_registered_model("digits")
    client.create_model_version("digits", source=(home / "m").as_uri(), run_id=promoted)
    told = said(digitlab, "rm", promoted[:8], recorded[:8], "--yes")
    assert "the model digits/1 came of it" in told
    assert f"run {repeated[:8]}, which stays, reproduces it" in told
    assert "nothing to remove" in told
    assert there() == ["run 1", "run 2", "run 3"]
    said(digitlab, "rm", "old", "--yes")
    assert there() == ["run 1"], "with its reproduction a run may go"


def test_old_and_failed_runs_go_and_the_best_stay(digitlab: Cli) -> None:
    for number in range(6):
        deliver(f"run {number}", days=10 - number, failed=number == 1)
    deliver("run 7", study="other", days=9)
    assert "which runs" in said(digitlab, "gc", code=2)
    said(digitlab, "gc", "--failed", "--yes")
    assert there() == ["run 0", "run 2", "run 3", "run 4", "run 5", "run 7"]
    said(digitlab, "gc", "--older", "7d", "--keep-best", "1", "--yes")
    assert there() == ["run 4", "run 5", "run 7"], "the only one of its study is its best"
    said(digitlab, "gc", "--keep-best", "1", "--study", "old", "--yes")
    assert there() == ["run 5", "run 7"], "by validation: by test it is the worst"


def test_a_sweep_goes_with_its_own_run_but_not_what_is_unfinished(home: Path, digitlab: Cli) -> None:
    quick = ("epochs=1", "executor=inprocess", "record.plots=never", "optimizer=sgd")
    said(digitlab, "sweep", *quick, "seed=0,1", "study=done")
    (folder,) = home.glob("mlruns/sweeps/*/")
    journal = (folder / "journal.jsonl").read_text()
    (folder / "journal.jsonl").write_text("".join(journal.splitlines(keepends=True)[:-1]))
    (trial,) = [run for run in RunStore(resolve_uri(None)).runs() if "seed=1" in run.name]
    assert "is cut short" in said(digitlab, "rm", trial.short_id, "--yes")
    assert "is cut short" in said(digitlab, "gc", "--keep-best", "1", "--yes")
    assert len(there()) == 3
    told = said(digitlab, "rm", folder.name)
    assert f"sweep {folder.name}" in told
    assert "3 runs" in told
    said(digitlab, "rm", folder.name, "--yes")
    assert there() == []
    assert "3 runs back" in said(digitlab, "restore", folder.name)
    (folder / "journal.jsonl").write_text(journal)
    said(digitlab, "gc", "--keep-best", "1", "--yes")
    assert len(there()) == 2, "a trial that stays keeps its sweep's own run"
    said(digitlab, "rm", folder.name, "--yes", "--purge")
    assert not folder.exists()
    (removed,) = RunStore(resolve_uri(None)).removed_runs()
    assert artifacts(home) == {removed.run_id}, "it was removed before, and can come back"


def test_a_kill_leaves_each_run_whole_or_gone(
    home: Path, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [deliver(f"run {number}") for number in range(3)]

    class Killed(BaseException):
        pass

    def killed(uri: str, run: object) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(trash, "_remove_artifacts", killed)  # its row is gone by then
        with pytest.raises(Killed):
            digitlab("rm", "old", "--yes", "--purge")
    removed = RunStore(resolve_uri(None)).removed_runs()
    assert len(removed) == 2, "the others can still come back"
    assert artifacts(home) == set(runs)
    assert "artifacts of no run" in said(digitlab, "du")
    said(digitlab, "restore", "old")
    assert len(there()) == 2
    said(digitlab, "gc", "--purge", "--yes")
    assert artifacts(home) == {run.run_id for run in removed}


def test_a_store_is_not_trusted_to_name_a_folder(home: Path, digitlab: Cli, tmp_path: Path) -> None:
    run_id = deliver("run 1")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("all of it")
    (run,) = RunStore(resolve_uri(None)).runs()
    hostile = dataclasses.replace(run, artifact_uri=precious.as_uri())
    removed = Trash(resolve_uri(None))
    removed.put([hostile])
    assert removed.purge([hostile]) == [precious.as_uri()]
    assert (precious / "thesis.txt").read_text() == "all of it"
    assert artifacts(home) == {run_id}


def test_du_counts_every_byte_once(home: Path, digitlab: Cli) -> None:
    deliver("run 1")
    deliver("run 2", study="other")
    said(digitlab, "rm", "other", "--yes")
    for by in ("study", "sweep", "run"):
        lines = json.loads(said(digitlab, "du", "--json", "--by", by))
        everything = sum(f.stat().st_size for f in home.glob("mlruns/**/*") if f.is_file())
        assert sum(line["bytes"] for line in lines) == pytest.approx(everything, rel=0.01)
    assert "removed, until purged" in said(digitlab, "du")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["rm", "nothing"], "is no run, sweep or study"),
        (["rm"], "Missing argument"),
        (["restore", "nothing"], "that was removed"),
        (["gc", "--older", "soon"], "since when"),
        (["gc", "--keep-best", "0"], "keep-best"),
    ],
)
def test_a_mistake_is_told(line: list[str], words: str, digitlab: Cli) -> None:
    deliver("run 1")
    assert words in said(digitlab, *line, code=2)
    assert there() == ["run 1"]
