"""What every format of digitlab left on a disk, in the hands of today's code.

Each COMMIT/mlruns.tar.xz is what that commit wrote in /project. An example is added whenever a format
changes, and none is ever changed:

    a884d98  before there were rooms
    e84631a  before run.json, delivery.json and checkpoints named a version; with a run cut short
    e387849  every one of them names version 1; with a run cut short
"""

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from digitlab.config import project
from digitlab.errors import DigitlabError
from digitlab.runs import checkpoints, document
from digitlab.runs.checkpoints import load_checkpoint
from digitlab.sweep import manifest
from digitlab.sweep.sweep_folder import all_sweeps, claim
from digitlab.text.formats import Format, LaterFormat, Values
from digitlab.tracking import run_folder
from digitlab.tracking.run_folder import LaterRecord, RunFolder, all_records
from tests.support.cli import Cli
from tests.support.run_folders import new_record

FOLDER, ARCHIVE = Path(__file__).resolve().parent, "mlruns.tar.xz"
EXAMPLES = sorted(FOLDER.glob(f"*/{ARCHIVE}"))
WITH_CHECKPOINTS = ("e84631a", "e387849")
NEWEST = WITH_CHECKPOINTS[-1]
FORMATS = {
    "record.json": document.FORMAT,
    "manifest.json": manifest.FORMAT,
    "checkpoint": checkpoints.FORMAT,
    "run.json": run_folder.RUN_FORMAT,
    "delivery.json": run_folder.DELIVERY_FORMAT,
}


def unpack(example: Path, home: Path) -> None:
    with tarfile.open(example) as archive:
        archive.extractall(home, filter="data")


@pytest.fixture
def newest(home: Path) -> None:
    """The project has what the newest example left."""
    unpack(FOLDER / NEWEST / ARCHIVE, home)


@pytest.mark.parametrize("name", FORMATS)
def test_a_chain_leads_from_every_version_to_the_latest(name: str) -> None:
    assert sorted(FORMATS[name].upgrades) == list(range(1, FORMATS[name].latest))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.parent.name)
def test_what_every_format_left_is_read_shown_compared_and_reproduced(
    example: Path, home: Path, digitlab: Cli
) -> None:
    unpack(example, home)
    sweeps = json.loads(digitlab("sweeps", "--json").out)
    assert [sweep["done"] for sweep in sweeps] == [2]
    runs = json.loads(digitlab("runs", "--json").out)
    for word in [*(run["run_id"] for run in runs), *(sweep["id"] for sweep in sweeps)]:
        shown = digitlab("show", word)
        assert shown.code == 0, shown.err
    finished = [run["run_id"] for run in runs if run["status"] == "FINISHED"]
    compared = digitlab("compare", *finished)
    assert compared.code == 0, compared.err
    reproduced = digitlab("reproduce", finished[-1])
    assert reproduced.code in (0, 3), reproduced.out + reproduced.err
    assert "FAIL  records" not in digitlab("doctor").out


@pytest.mark.parametrize("example", WITH_CHECKPOINTS)
def test_a_run_that_was_cut_short_goes_on_at_its_checkpoint(
    example: str, home: Path, digitlab: Cli
) -> None:
    unpack(FOLDER / example / ARCHIVE, home)
    (record,) = all_records(project.records())
    resumed = digitlab("resume", str(record.delivered.run_id), "--force")
    assert resumed.code == 0, resumed.err
    assert "goes on at epoch 1, step " in resumed.err
    assert "training begins anew" not in resumed.err


def numbered(file: Path, version: int) -> bytes:
    """Let a file name this version; returns what it holds then."""
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"format": version}))
    return file.read_bytes()


@pytest.mark.usefixtures("newest")
def test_a_manifest_of_a_later_version_is_refused_and_left_alone(digitlab: Cli) -> None:
    (folder,) = all_sweeps(project.sweeps())
    frozen = folder.manifest()
    later = manifest.FORMAT.latest + 1
    written = numbered(folder.folder / "manifest.json", later)
    resumed = digitlab("resume", folder.id)
    assert resumed.code == 1
    assert re.search(f"got {later}: .*upgrade digitlab", resumed.err)
    with pytest.raises(LaterFormat, match=rf"got {later}: .*upgrade digitlab"):
        claim(frozen, rerun=False, say=print)  # by repeating its command
    assert (folder.folder / "manifest.json").read_bytes() == written
    assert "upgrade digitlab" in digitlab("sweeps").err


@pytest.mark.parametrize("name", ["run.json", "delivery.json"])
@pytest.mark.usefixtures("newest")
def test_a_run_folder_of_a_later_version_is_refused_and_left_alone(name: str, digitlab: Cli) -> None:
    (record,) = all_records(project.records())
    written = numbered(record.folder / name, 2)
    with pytest.raises(LaterRecord, match=r"got 2: .*upgrade digitlab"):
        RunFolder.load(record.folder)
    assert RunFolder.reopen(record.folder) is None
    with pytest.raises(DigitlabError, match="upgrade digitlab"):
        new_record(project.records(), record_id=record.folder.name)
    assert (record.folder / name).read_bytes() == written
    assert not list(record.folder.glob("*.damaged"))
    told = digitlab("doctor").out
    assert "upgrade this one to read them" in told
    assert "to be looked at and deleted" not in told


@pytest.mark.usefixtures("newest")
def test_a_checkpoint_of_a_later_version_is_refused_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, digitlab: Cli
) -> None:
    (record,) = all_records(project.records())
    state = load_checkpoint(record.folder, print)
    assert state is not None
    with monkeypatch.context() as later:
        later.setattr(checkpoints, "FORMAT", Format(upgrades={1: dict}, unnumbered=1))
        checkpoints.save_checkpoint(record.folder, state)
    file, run_file = record.folder / "checkpoint", record.folder / "run.json"
    left = file.read_bytes(), run_file.read_bytes()
    with pytest.raises(LaterFormat, match=r"the checkpoint .* got 2: .*upgrade digitlab"):
        load_checkpoint(record.folder, print)
    resumed = digitlab("resume", str(record.delivered.run_id), "--force")
    assert resumed.code == 1
    assert re.search("the checkpoint .* got 2: .*upgrade digitlab", resumed.err)
    assert (file.read_bytes(), run_file.read_bytes()) == left, "it stays KILLED, to be gone on with"


def upgrade(change: Callable[[Values], Any], known: Format | None = None) -> Format:
    """A made-up further version: what `change` does to values of the last known one, or the first."""
    before = known or Format()

    def to_next(values: Values) -> Values:
        copied: Values = json.loads(json.dumps({k: v for k, v in values.items() if k != "tensors"}))
        change(copied)
        return values | copied

    return Format(upgrades={**before.upgrades, before.latest: to_next}, unnumbered=1)


@pytest.mark.usefixtures("newest")
def test_every_reader_upgrades_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    (record,), (folder,) = all_records(project.records()), all_sweeps(project.sweeps())
    content = (record.artifacts / "record.json").read_bytes()

    def renamed(name: str, known: Format | None = None) -> Format:
        return upgrade(lambda values: values.update({name: "other"}), known)

    monkeypatch.setattr(run_folder, "RUN_FORMAT", renamed("study"))
    monkeypatch.setattr(run_folder, "DELIVERY_FORMAT", renamed("run_id"))
    monkeypatch.setattr(manifest, "FORMAT", renamed("study", manifest.FORMAT))
    monkeypatch.setattr(document, "FORMAT", renamed("command"))
    monkeypatch.setattr(checkpoints, "FORMAT", upgrade(lambda values: values.update(best_epoch=7)))
    read = RunFolder.load(record.folder)
    assert (read.run.study, read.delivered.run_id) == ("other", "other")
    assert folder.manifest().study == "other"
    assert document.parse(content).command == "other"
    assert document.parse(content).format == 2
    state = load_checkpoint(record.folder, print)
    assert state is not None
    assert state.best_epoch == 7
    read.save()
    assert json.loads((record.folder / "run.json").read_bytes())["format"] == 2
