"""The wheel in an empty folder, as a new user meets it, by the commands of docs/your-own-project.md."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.cli import CHECKOUT
from tests.support.installed import Installed

PAGE = CHECKOUT / "docs" / "your-own-project.md"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("own"))


def commands() -> list[str]:
    """The page's, from `digitlab init` on."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return lines[[line.startswith("digitlab init") for line in lines].index(True) :]


def test_the_page_and_nothing_else_makes_a_project_that_works(installed: Installed) -> None:
    told = {}
    for line in commands():
        ids = {}
        if "3f2a91c0" in line:
            ids["3f2a91c0"] = json.loads(installed.run("digitlab runs --json"))[0]["run_id"]
        if "9c977b3a" in line:
            ids["9c977b3a"] = json.loads(installed.run("digitlab sweeps --json"))[0]["id"]
        for called, one in ids.items():
            line = line.replace(called, one)
        told[line.split()[1]] = installed.run(line)
    assert told["reproduce"].startswith("IDENTICAL")
    assert "no evidence" in told["compare"] or "better" in told["compare"], told["compare"]
    project = installed.folder / "shapes"
    assert installed.where == project
    ours = installed.run("python -c 'import digitlab; print(digitlab.__file__)'").strip()
    assert Path(ours).is_relative_to(installed.folder / ".venv")


def test_somebody_elses_repository_is_not_taken_for_digitlabs(installed: Installed) -> None:
    installed.where = installed.folder / "shapes" / "tests"
    run = json.loads(installed.run("digitlab runs --json"))[0]["run_id"]
    installed.run(f"digitlab export {run} run.zip && unzip -q run.zip record.json")
    code = json.loads((installed.where / "record.json").read_text())["code"]
    assert (code["commit"], code["patch"]) == ("unknown", None)
    assert "commit unknown" in installed.run("digitlab doctor")


def test_a_run_that_was_stopped_is_resumed(installed: Installed) -> None:
    installed.where = installed.folder / "shapes"
    process = installed.start("train", "experiment=first", "study=cut", "epochs=600")
    records = installed.where / "mlruns" / "records"
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size for file in records.glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (run,) = json.loads(installed.run("digitlab runs --study cut --json"))
    assert run["status"] == "KILLED"
    installed.run(f"digitlab resume {run['run_id']}")
    (run,) = json.loads(installed.run("digitlab runs --study cut --json"))
    assert run["status"] == "FINISHED"
