"""What the controller delivers of its workers' runs: once, whole, also while they go on."""

import subprocess
import sys
from pathlib import Path

import pytest

from digitlab.sweep.workers import deliveries
from digitlab.sweep.workers.deliveries import Deliveries
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.connection.store_process import STORES
from digitlab.tracking.run_folder import RunFolder, Status
from digitlab.tracking.store import RunStore
from tests.support.processes import wait_for
from tests.support.run_folders import new_record


@pytest.fixture(autouse=True)
def _imported() -> None:
    """The store's process is ready: on a busy machine its imports may take all the time that it has."""
    STORES.answer(STORES.ask(resolve_uri(None), str), seconds=60)


def trained(home: Path, number: int, status: Status | None, uri: str | None = None) -> Path:
    """The folder that a worker leaves; None: its process is gone without a word."""
    record = new_record(
        home / "mlruns" / "records",
        record_id=f"r{number}",
        name=f"trial {number}",
        tracking_uri=uri or resolve_uri(None),
    )
    record.log_metrics({"train/loss": 1.0}, 1)
    if status:
        record.finish(status)
    record.release()
    return record.folder


def stored() -> dict[str, str]:
    return {run.name: run.status for run in RunStore(resolve_uri(None)).runs()}


def test_runs_that_have_ended_are_delivered_once_and_leave_nothing(home: Path) -> None:
    several = Deliveries()
    for number in range(6):
        several.begin(number, home / "mlruns" / "records" / f"r{number}")
    for number in range(6):
        several.end(number, trained(home, number, "FINISHED"))
    run_ids = several.finish()
    assert run_ids == several.run_ids
    assert sorted(run_ids) == list(range(6))
    runs = RunStore(resolve_uri(None)).runs()
    assert {run.run_id: run.name for run in runs} == {i: f"trial {n}" for n, i in run_ids.items()}
    assert {run.status for run in runs} == {"FINISHED"}
    assert list((home / "mlruns" / "records").iterdir()) == []
    assert several.finish() == {}


def test_a_run_that_goes_on_is_shown_and_ends_as_the_same_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "SHOWN_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(deliveries, "SHOWN_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("digitlab.tracking.delivery.PUSH_EVERY_SECONDS", 0.0)
    one = Deliveries()
    one.begin(0, home / "mlruns" / "records" / "r0")
    one.go_on()  # its worker has not begun yet
    folder = trained(home, 0, None)

    def is_shown() -> bool:
        one.go_on()
        return (home / "mlruns" / "mlflow.db").exists() and stored() == {"trial 0": "RUNNING"}

    wait_for(is_shown, "it is in the store", seconds=60)
    record = RunFolder.load(folder)
    record.finish("FINISHED")
    one.end(0, folder)
    assert list(one.finish()) == [0]
    assert stored() == {"trial 0": "FINISHED"}


def test_of_many_that_begin_at_once_one_after_another_is_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs two deliveries then instead of one."""
    monkeypatch.setattr(deliveries, "SHOWN_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(deliveries, "SHOWN_EVERY_SECONDS", 1000.0)
    several = Deliveries()
    folders = [trained(home, number, None) for number in range(3)]
    for number, folder in enumerate(folders):
        several.begin(number, folder)

    def is_shown() -> bool:
        several.go_on()
        return (home / "mlruns" / "mlflow.db").exists() and len(stored()) > 0

    wait_for(is_shown, "one is in the store", seconds=60)
    several.go_on()
    assert stored() == {"trial 0": "RUNNING"}


def test_a_run_whose_worker_died_is_killed_in_the_store(home: Path) -> None:
    one = Deliveries()
    one.end(0, trained(home, 0, None))
    one.finish()
    assert stored() == {"trial 0": "KILLED"}


def test_what_has_no_run_and_what_has_no_store_costs_nothing(home: Path) -> None:
    some = Deliveries()
    some.end(0, home / "mlruns" / "records" / "nothing")
    folder = trained(home, 1, "FINISHED", uri="http://127.0.0.1:9")
    some.end(1, folder)
    assert some.finish() == {}
    assert RunFolder.load(folder).run.status == "FINISHED"
    assert RunFolder.load(folder).try_to_own(), "free for `digitlab sync`"


def test_a_record_is_looked_for_in_the_store_only_if_it_may_be_there(home: Path) -> None:
    store, asked = RunStore(resolve_uri(None)), []
    folder = trained(home, 0, "FINISHED")
    client = store._upload._client
    search = client.search_runs
    client.search_runs = lambda *a, **k: asked.append(k) or search(*a, **k)
    store.deliver(RunFolder.load(folder))
    assert asked == [], "nobody has tried before"
    again = trained(home, 1, "FINISHED")
    RunFolder.load(again).save_delivered()  # as before a run is created, by a process that then dies
    store.deliver(RunFolder.load(again))
    assert len(asked) == 1
    assert sorted(stored()) == ["trial 0", "trial 1"]


def test_workers_import_no_mlflow() -> None:
    """The import takes a second, and MLflow sends telemetry unless it is switched off before."""
    said = "import sys, digitlab.sweep.workers.preloaded; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], check=False).returncode == 0
