"""Every request to a tracking server fails, in each way in which one can: nothing is lost or doubled.

After SQLite's manner: the Nth, for N = 1, 2, ... until a run passes untouched.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.aftermath import Ended, check_record, end_of_study, recover
from tests.faults.conftest import NewHome, Served
from tests.faults.loop import Loop, numbers, of_the_day
from tests.faults.proxy import Failure
from tests.support.cli import Cli, in_ci, start

pytestmark = [in_ci, pytest.mark.fault("loop")]
RUN = ["train", "epochs=2", "checkpoint.every_steps=10", "record.plots=never"]
QUICKLY = {"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0"}  # MLflow tries again without waiting for it
FAILURES = [failure for failure in Failure if failure is not Failure.KILLED]
MARKS = {(Failure.REFUSED, True): "F10", (Failure.RESET, True): "F11", (Failure.HUNG, True): "F11"}
CASES = [
    pytest.param(
        failure,
        lasts,
        marks=pytest.mark.fault(MARKS.get((failure, lasts), "loop")),
        id=f"{failure.value} {'from then on' if lasts else 'once'}",
    )
    for failure in FAILURES
    for lasts in (False, True)
]
SAMPLE = 1  # of each in CI


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("failure", "lasts"), of_the_day(CASES, 4))
def test_in_a_run(
    failure: Failure,
    lasts: bool,
    served: Served,
    new_home: NewHome,
    tmp_path: Path,
    digitlab: Cli,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    folder, proxy = served
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    name = f"{failure.value}{' from then on' * lasts}"

    def train(number: int) -> tuple[Path, list[str], int, str]:
        home = new_home()
        line = [*RUN, f"study={name} {number}"]
        with proxy.failing(failure, number, lasts=lasts):
            process = start(line, **QUICKLY)
            _, said = process.communicate(timeout=120)
        return home, line, process.returncode, said

    def end(line: list[str]) -> dict[str, Ended]:
        return end_of_study(folder / "server.db", line[-1].removeprefix("study="), folder / "artifacts")

    _, line, code, said = train(0)
    assert (code, "not delivered" in said) == (0, False), said
    expected = end(line)
    loop = Loop(f"tracking calls: {name}", record_property)
    for number in numbers(name, proxy.count, sample=SAMPLE):
        home, line, code, said = train(number)
        if not proxy.hit:
            break
        with loop.survives(f"{number}, {proxy.hit}: exit code {code}\n{said}"):
            assert "Traceback" not in said
            assert code == 0, "no store costs a training anything"
            check_record(home, tmp_path)
            recover(code, line, digitlab)
            assert list((home / "mlruns" / "records").iterdir()) == []
            assert end(line) == expected
        shutil.rmtree(home)
    loop.end()
