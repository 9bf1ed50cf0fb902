"""kill -9 while artifacts are brought to the store: none is lost, none is left half."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from digitlab.config import project
from digitlab.tracking.run_folder import all_records
from tests.faults.aftermath import check_record, end_of_study, recover
from tests.faults.conftest import NewHome, Served
from tests.faults.disk import KILL, KILL_BOTH, FailingDisk
from tests.faults.loop import Loop, numbers
from tests.faults.proxy import Failure
from tests.support.cli import Cli, in_ci, start

pytestmark = [pytest.mark.fault("F7"), in_ci]
RUN = ["train", "epochs=2", "record.plots=never"]


@pytest.mark.parametrize("victims", [KILL, KILL_BOTH], ids=["who copies", "that and the run"])
def test_into_a_folder(
    victims: int,
    disk: FailingDisk,
    new_home: NewHome,
    tmp_path: Path,
    digitlab: Cli,
    record_property: Callable[[str, object], None],
) -> None:
    """When half of an artifact is written, for each of them."""
    home = new_home()
    assert digitlab(*RUN, "study=faults").code == 0
    expected = end_of_study(home / "mlruns" / "mlflow.db", "faults")
    loop = Loop("F7 artifacts half copied", record_property)
    for number in numbers("copies", 5, sample=2):
        home = new_home()
        with disk.failing(home, number, victims, only="write mlruns/artifacts"):
            process = start([*RUN, "study=faults"], **disk.environment)
            _, said = process.communicate(timeout=120)
        if not disk.hit:
            break
        with loop.survives(f"{number}, {disk.hit}: exit code {process.returncode}\n{said}"):
            assert process.returncode == (0 if victims == KILL else -9)
            assert victims == KILL_BOTH or "the run waits in" in said
            check_record(home, tmp_path)
            (record,) = all_records(project.records())
            shown = json.loads(digitlab("show", str(record.delivered.run_id), "--json").out)
            assert shown["status"] == "FINISHED", "which the store does not know yet"
            recover(process.returncode, [*RUN, "study=faults"], digitlab)
            assert end_of_study(home / "mlruns" / "mlflow.db", "faults") == expected
    loop.end()


def test_to_a_server(
    served: Served,
    new_home: NewHome,
    digitlab: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """The run is killed when the server has half of an artifact, for each of them."""
    folder, proxy = served
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    new_home()
    assert digitlab(*RUN, "study=whole").code == 0
    expected = end_of_study(folder / "server.db", "whole", folder / "artifacts")
    loop = Loop("F7 artifacts half sent", record_property)
    for number in numbers("uploads", 5, sample=2):
        home, line = new_home(), [*RUN, f"study=killed{number}"]
        with proxy.failing(Failure.KILLED, number, only="PUT "):
            process = proxy.victim = start(line)
            _, said = process.communicate(timeout=120)
        if not proxy.hit:
            break
        with loop.survives(f"{number}, {proxy.hit}: exit code {process.returncode}\n{said}"):
            assert process.returncode == -9
            check_record(home, tmp_path)
            recover(process.returncode, line, digitlab)
            assert list((home / "mlruns" / "records").iterdir()) == []
            end = end_of_study(
                folder / "server.db", line[-1].removeprefix("study="), folder / "artifacts"
            )
            assert end == expected
    loop.end()
