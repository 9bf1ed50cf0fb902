"""The pictures of runs: drawn at once, at a sweep's end, or on request, and always the same."""

import pytest

from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun
from tests.support.cli import Cli
from tests.support.sweeps import tree

PICTURES = {"learning_curves.png", "confusion_matrix.png", "worst_mistakes.png"}
LINE = ("epochs=2", "study=drawn", "record.plots=auto")


def store() -> RunStore:
    return RunStore(resolve_uri(None))


def pictures(run: StoredRun) -> set[str]:
    return {path for path, _ in store().artifacts(run)} & PICTURES


def test_of_a_sweep_the_best_run_has_pictures_and_show_draws_others(digitlab: Cli) -> None:
    assert digitlab("sweep", *LINE, "executor=inprocess", "seed=0,1,2").code == 0
    (own,), trials = tree("drawn")
    assert [run.run_id for run in trials if pictures(run)] == [own.tags["best.run"]]
    other = next(run for run in trials if not pictures(run))
    shown = digitlab("show", other.run_id, "--plots")
    assert "learning_curves.png, confusion_matrix.png, worst_mistakes.png" in shown.err
    assert pictures(other) == PICTURES
    assert "all its pictures" in digitlab("show", other.run_id, "--plots").err

    # The oracle: the same configuration alone, which draws what it has in memory.
    assert digitlab("train", *LINE, f"seed={other.params['seed']}").code == 0
    alone = store().runs("drawn")[0]
    assert "trial" not in alone.tags
    for name in PICTURES:
        redrawn, drawn = (store().content(run, name) for run in (other, alone))
        assert redrawn == drawn, name


@pytest.mark.parametrize(("wanted", "count"), [("always", 2), ("never", 0)])
def test_all_or_none_of_a_sweep_are_drawn_if_asked(wanted: str, count: int, digitlab: Cli) -> None:
    line = ("sweep", *LINE[:-1], "executor=inprocess", "seed=0,1", f"record.plots={wanted}")
    assert digitlab(*line).code == 0
    assert [pictures(run) for run in tree("drawn")[1]].count(PICTURES) == count


def test_a_run_without_predictions_is_refused(digitlab: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        digitlab("train", *LINE, "optimizer=sgd", "optimizer.learning_rate=1e30", "model=cnn").code == 1
    )
    (run,) = store().runs("drawn")
    result = digitlab("show", run.run_id, "--plots")
    assert result.code == 2
    assert f"run {run.short_id} is FAILED: it has left no predictions.parquet" in result.err


def test_other_test_images_are_refused(digitlab: Cli) -> None:
    assert digitlab("train", *LINE[:-1], "record.plots=never").code == 0
    (run,) = store().runs("drawn")
    store().set_tag(run.run_id, "digitlab.data.test_images", "0" * 64)
    result = digitlab("show", run.run_id, "--plots")
    assert result.code == 2
    assert (
        f"the test images of digits are not those that run {run.short_id} was tested on" in result.err
    )
    assert pictures(run) == set()
