"""A store that commit a884d98 wrote, before there were rooms, in the hands of today's code.

tests/formats/a884d98/mlruns.tar.xz is the mlruns/ of a project that lay in /project, made there by
`digitlab train epochs=2` and `digitlab sweep seed=0,1 epochs=2 study=sweep`, without pictures.
"""

import json
import re
import tarfile
from pathlib import Path

import pytest

from tests.support.cli import Cli

ARCHIVE = Path(__file__).resolve().parent / "a884d98" / "mlruns.tar.xz"
RUN, TRIAL, SWEEP = "930dcee5", "d7872814", "1d276909"
LINE = ["sweep", "seed=0,1", "epochs=2", "study=sweep"]


@pytest.fixture(autouse=True)
def _store(home: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home, filter="data")


def test_older_runs_are_found_shown_and_compared(digitlab: Cli) -> None:
    runs = json.loads(digitlab("runs", "--json").out)
    assert [run["run_id"][:8] for run in runs] == [TRIAL, "2cb5719e", RUN]
    assert [sweep["id"] for sweep in json.loads(digitlab("sweeps", "--json").out)] == [SWEEP]
    shown = digitlab("show", RUN)
    assert shown.code == 0, shown.err
    assert re.search(r"test/accuracy +0\.913889", shown.out)
    assert re.search(r"weights\.safetensors +31,552 bytes", shown.out)
    assert re.search(r"summary\.md +241 bytes", digitlab("show", SWEEP).out)
    compared = digitlab("compare", RUN, TRIAL)
    assert compared.code == 0, compared.err
    assert "right alone on 2 images, wrong alone on 9" in compared.out


def test_an_older_run_is_reproduced(digitlab: Cli) -> None:
    """To the bit on a processor like the one that trained it, and elsewhere up to rounding."""
    reproduced = digitlab("reproduce", RUN)
    assert reproduced.code in (0, 3), reproduced.out + reproduced.err
    assert re.search("^(IDENTICAL|SAME COMPUTATION, OTHER ROUNDING)", reproduced.out, re.MULTILINE)
    assert "by other code: all files (moved since)" in reproduced.out or reproduced.code == 3


def test_older_trials_run_again_and_the_sweep_says_once_why(digitlab: Cli) -> None:
    why = "2 trials run again that had finished: source changed since run 2cb5719e: all files (moved "
    again = digitlab(*LINE)
    assert again.code == 0, again.err
    assert again.err.count("run again") == 1
    assert why in again.err
    repeated = digitlab(*LINE)
    assert "all ended before" in repeated.out
    assert "run again" not in repeated.err
