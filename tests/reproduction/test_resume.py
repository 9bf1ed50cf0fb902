"""Going on with a run that was cut short: the same bits, whatever cut it short and wherever."""

import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from digitlab import cli
from digitlab.config import project
from digitlab.config.fingerprint import source_files
from digitlab.config.schema import Config
from digitlab.data.splits import load
from digitlab.models.predict import predict
from digitlab.models.saved import weights_digest
from digitlab.runs import checkpoints as checkpoint
from digitlab.runs.checkpoints import FILE, NEW, PREVIOUS, Checkpoints, load_checkpoint, save_checkpoint
from digitlab.runs.document import config_digest
from digitlab.runs.interrupts import Interrupts
from digitlab.runs.trace import Trace, trace_of
from digitlab.text.files import write_atomically
from digitlab.tracking.run_folder import RunFolder, all_records
from digitlab.training import loop
from digitlab.training.evaluation import evaluate
from digitlab.training.loop import Position, paused
from digitlab.training.resumable import Resumable, TrainingState
from tests.kills.victim import RUN_PLACES
from tests.support.cli import CHECKOUT, LEVEL, Cli, Result, artifact, in_ci, start
from tests.support.processes import await_epochs

STEPS = 20  # of an epoch: 1257 images in batches of 64
RUN = ["train", "model=cnn", "scheduler=cosine", "epochs=4", "checkpoint.every_steps=5"]
RUN += ["record.plots=never"]
LONG = ["epochs=60" if word == "epochs=4" else word for word in RUN]  # 10 s: it will be interrupted
NUM_RANDOM_KILLS = 12 if LEVEL == "1" else 2
CPU = torch.device("cpu")


class CutShort(Exception):  # noqa: N818  (what happened)
    pass


def quietly(message: str) -> None:
    raise AssertionError(f"nothing is to be said, but: {message}")


# --- the training itself, through files ---


def begun(config: Config) -> Resumable:
    return Resumable(config, load(config.data, None), CPU)  # type: ignore[arg-type]


def end_of(resumed: Resumable) -> Trace:
    """Train it to its end."""
    for _ in resumed.reports(lambda position: None):
        pass
    test = load(resumed.config.data, None).test  # type: ignore[arg-type]
    evaluation = evaluate(predict(resumed.model, test), test.labels)
    digest = weights_digest(resumed.model.state_dict())
    return trace_of(resumed.initial_weights, resumed.history, weights=digest, evaluation=evaluation)


def cut_short(resumed: Resumable, at: int, folder: Path) -> bool:
    """Train until `at` steps are done in all, and save there; False if it ends before."""

    def before_step(position: Position) -> None:
        if resumed.steps_at(position) == at:
            save_checkpoint(folder, resumed.state(paused(position, CPU), {}))
            raise CutShort

    try:
        for _ in resumed.reports(before_step):
            pass
    except CutShort:
        return True
    return False


def restored(config: Config, folder: Path, say: Callable[[str], None] = quietly) -> Resumable:
    state = load_checkpoint(folder, say)
    assert state is not None
    resumed = begun(config)
    resumed.restore(state)
    return resumed


OPTIMIZERS = {
    "sgd": ("optimizer=sgd", "optimizer.momentum=0.9", "optimizer.learning_rate=0.05"),
    "adam": ("optimizer=adam", "optimizer.weight_decay=0.001"),
    "rmsprop": ("optimizer=rmsprop", "optimizer.momentum=0.5"),
}
KEEPING = ("checkpoint.weights=best", "early_stopping.patience=2", "early_stopping.min_delta=0.01")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_wherever_it_is_cut_short_it_ends_with_the_same_bits(
    model: str, optimizer: str, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    line = (f"model={model}", "scheduler=cosine", "epochs=3", *KEEPING, *OPTIMIZERS[optimizer])
    config = make_config(*line)
    expected = end_of(begun(config))
    steps = len(expected.epochs) * STEPS
    dice = random.Random(f"{model} {optimizer}")
    for cut in [1, STEPS, STEPS + dice.randrange(2, STEPS - 1), steps - 1]:
        torch.rand(dice.randrange(9))  # another process has drawn other numbers
        assert cut_short(begun(config), cut, tmp_path)
        assert end_of(restored(config, tmp_path)) == expected, f"cut short after step {cut}"
    resumed = begun(config)
    cuts = sorted({dice.randrange(1, steps) for _ in range(6)})
    for cut in cuts:
        assert cut_short(resumed, cut, tmp_path)
        resumed = restored(config, tmp_path)
    assert end_of(resumed) == expected, f"cut short after steps {cuts}"


def test_a_training_that_has_stopped_early_stays_stopped(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    """Killed while it was tested: it trains no further epoch, and has its best weights."""
    stale = ("early_stopping.patience=2", "early_stopping.min_delta=9", "checkpoint.weights=best")
    config = make_config("epochs=9", "optimizer=sgd", "optimizer.learning_rate=2", *stale)
    first = begun(config)
    for report in first.reports(lambda position: None):
        save_checkpoint(tmp_path, first.state(Position(epoch=report.epoch + 1), {}))
    assert len(first.history) == 3
    again = restored(config, tmp_path)
    assert end_of(again) == end_of(restored(config, tmp_path))
    assert len(again.history) == 3
    assert again.chosen_epoch == first.chosen_epoch
    assert weights_digest(again.model.state_dict()) == weights_digest(first.model.state_dict())


FORGOTTEN: dict[str, Callable[[TrainingState, Resumable], Any]] = {
    "model": lambda state, new: {"model": new.model.state_dict()},
    "optimizer": lambda state, new: {
        "optimizer": {name: torch.zeros_like(value) for name, value in state.optimizer.items()}
    },
    "dropout": lambda state, new: {"position": dataclasses.replace(state.position, dropout=None)},
    "losses": lambda state, new: {
        "position": dataclasses.replace(
            state.position, losses=[torch.zeros_like(loss) for loss in state.position.losses]
        )
    },
    "predictions": lambda state, new: {
        "position": dataclasses.replace(
            state.position, predictions=[p.flip(0) for p in state.position.predictions]
        )
    },
    "history": lambda state, new: {"history": []},
}


@pytest.mark.parametrize("part", FORGOTTEN)
def test_every_part_of_the_state_is_needed(
    part: str, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    """Else the comparison above would prove nothing of it."""
    config = make_config("model=cnn", "epochs=2")
    expected = end_of(begun(config))
    assert cut_short(begun(config), STEPS + 7, tmp_path)
    state = load_checkpoint(tmp_path, quietly)
    assert state is not None
    resumed = begun(config)
    resumed.restore(dataclasses.replace(state, **FORGOTTEN[part](state, resumed)))
    assert end_of(resumed) != expected


def test_more_parameters_than_ten_keep_their_velocities() -> None:
    """safetensors sorts by name: velocity.10 before velocity.2."""
    from digitlab.config.schema import SGDConfig
    from digitlab.training.optimizers import SGD

    config = SGDConfig(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)
    sizes = range(1, 13)
    one, other = (SGD([torch.zeros(size) for size in sizes], config) for _ in range(2))
    one.step([torch.full((size,), float(size)) for size in sizes], 0.1)
    other.restore(dict(sorted(one.state().items())))
    assert all(a.equal(b) for a, b in zip(one.velocities, other.velocities, strict=True))


# --- when it is saved ---


def positions_saved(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    interrupt_at: int | None = None,
    resumed: Resumable | None = None,
) -> list[tuple[int, int]]:
    """Epoch and step of every checkpoint that a training writes."""
    saved: list[tuple[int, int]] = []

    def noting(folder: Path, state: TrainingState) -> None:
        saved.append((state.position.epoch, state.position.step))
        save_checkpoint(folder, state)

    monkeypatch.setattr("digitlab.runs.checkpoints.save_checkpoint", noting)
    interrupts, resumed = Interrupts(), resumed or begun(config)
    checkpoints = Checkpoints(folder, resumed, identity={}, interrupts=interrupts)
    checkpoints.restore(quietly)

    def before_step(position: Position) -> None:
        checkpoints.before_step(position)
        if resumed.steps_at(position) + 1 == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)  # during the step that follows

    with interrupts, interrupts.deferred(), contextlib.suppress(BaseException):
        for report in resumed.reports(before_step):
            checkpoints.after_epoch(report)
    return saved


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        (["checkpoint.every_seconds=0"], [(2, 0), (3, 0)]),
        (["checkpoint.every_seconds=1e6"], []),
        (
            ["checkpoint.every_seconds=1e6", "checkpoint.every_steps=8"],
            [(1, 8), (1, 16), (2, 4), (2, 12), (3, 0)],
        ),
        (["checkpoint.every_seconds=1e6", "checkpoint.every_steps=20"], [(2, 0), (3, 0)]),
        (
            ["checkpoint.every_seconds=0", "checkpoint.every_steps=15"],
            [(1, 15), (2, 0), (2, 10), (3, 0)],
        ),
        (
            ["checkpoint.every_seconds=1e-9"],
            [(e, s) for e in (1, 2) for s in range(20) if (e, s) > (1, 0)] + [(3, 0)],
        ),
    ],
)
def test_checkpoints_are_written_when_the_knobs_say(
    knobs: list[str],
    expected: list[tuple[int, int]],
    make_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config = make_config("epochs=2", *knobs)
    assert positions_saved(config, monkeypatch, tmp_path) == expected


@pytest.mark.parametrize("step", [1, 7, 19, 20, 21, 39, 40])
def test_an_interrupt_saves_after_the_step_that_it_fell_into(
    step: int, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = make_config("epochs=2", "checkpoint.every_seconds=1e6")
    saved = positions_saved(config, monkeypatch, tmp_path, interrupt_at=step)
    assert saved == [(1 + step // 20, step % 20)]


def test_what_is_told_again_after_an_interruption_is_not_saved_again(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An earlier epoch's place with a later epoch's weights would end in other bits."""
    config = make_config("epochs=4", "checkpoint.every_seconds=0")
    assert cut_short(begun(config), 2 * STEPS + 7, tmp_path)
    assert positions_saved(config, monkeypatch, tmp_path) == [(4, 0), (5, 0)]


# --- damage ---


def two_checkpoints(config: Config, folder: Path) -> None:
    first = begun(config)
    assert cut_short(first, 25, folder)
    assert cut_short(restored(config, folder), 33, folder)


def random_bytes(content: bytes) -> bytes:
    return random.Random(0).randbytes(len(content))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-1],
    "cut in its digest": lambda content: content[:20],
    "with a byte more": lambda content: content + b"\0",
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "random": random_bytes,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(
    damage: str, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config("model=cnn", "epochs=3")
    expected = end_of(begun(config))
    two_checkpoints(config, tmp_path)
    file = tmp_path / FILE
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    said: list[str] = []
    resumed = restored(config, tmp_path, said.append)
    assert resumed.steps_done == 25
    (message,) = said
    assert f"{file} is damaged" in message
    assert message.endswith("the previous one is used")
    assert end_of(resumed) == expected


def test_every_flipped_bit_is_noticed(make_config: Callable[..., Config], tmp_path: Path) -> None:
    two_checkpoints(make_config("model=cnn", "epochs=3"), tmp_path)
    file, previous = tmp_path / FILE, tmp_path / PREVIOUS
    whole, earlier = file.read_bytes(), previous.read_bytes()
    dice = random.Random(1)
    for _ in range(200):
        bit = dice.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        previous.write_bytes(earlier)
        said: list[str] = []
        state = load_checkpoint(tmp_path, said.append)
        assert state is not None
        assert (state.position.epoch, state.position.step) == (2, 5), f"bit {bit}"
        assert len(said) == 1


def test_a_damaged_checkpoint_does_not_push_the_good_one_out(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renames of the next one, the good one must still be there."""
    config = make_config("epochs=3")
    two_checkpoints(config, tmp_path)
    (tmp_path / FILE).write_bytes(b"")
    resumed = restored(config, tmp_path, [].append)
    real = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.name == NEW and Path(target).name == FILE:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        cut_short(resumed, 40, tmp_path)
    monkeypatch.undo()
    assert restored(config, tmp_path).steps_done == 25
    assert not (tmp_path / NEW).exists(), "what a killed process left is removed"


# --- runs, as users meet them ---


@dataclasses.dataclass(frozen=True)
class End:
    """What must be equal, however often a run was cut short."""

    weights: str
    trace: dict[str, Any]
    steps: dict[str, list[int]]  # of every metric


def end_of_run(home: Path) -> End:
    """Of the only run here: FINISHED, every step of a metric once, nothing left on the disk."""
    database = home / "mlruns" / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as store:
        (run,) = store.execute("select run_uuid, status, artifact_uri from runs").fetchall()
        tags = dict(store.execute("select key, value from tags").fetchall())
        rows = store.execute("select key, step from metrics order by key, step").fetchall()
    assert run[1] == "FINISHED"
    assert "digitlab.error" not in tags
    assert list(all_records(project.records())) == []
    assert list(project.records().iterdir()) == []
    document = json.loads(artifact(run[2], "record.json").read_text())
    assert tags["digitlab.weights"] == document["trace"]["weights"]
    steps: dict[str, list[int]] = {}
    for key, step in rows:
        steps.setdefault(key, []).append(step)
    return End(tags["digitlab.weights"], document["trace"], steps)


def undisturbed(folder: Path, line: list[str]) -> End:
    (folder / "conf").symlink_to(CHECKOUT / "conf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITLAB_HOME", str(folder))
        cli.main(line)
        return end_of_run(folder)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> End:
    """Of RUN, when nobody cuts it short."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), RUN)


def the_record() -> RunFolder:
    (record,) = all_records(project.records())
    return record


def the_runs(digitlab: Cli) -> list[dict[str, Any]]:
    return json.loads(digitlab("runs", "--json").out)  # type: ignore[no-any-return]


@pytest.fixture
def steps_trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every step that this process trains, as (epoch, step from 1)."""
    done: list[tuple[int, int]] = []
    real = loop._refuse_divergence

    def noting(losses: Any, epoch: int, last_step: int) -> None:
        done.append((epoch, last_step))
        real(losses, epoch, last_step)

    monkeypatch.setattr(loop, "_refuse_divergence", noting)
    return done


@contextlib.contextmanager
def signalled(step: int, number: signal.Signals) -> Iterator[None]:
    """This process gets the signal in a step that it trains, from 1."""
    real, steps = loop._refuse_divergence, itertools.count(1)

    def stopping(*arguments: Any) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), number)
        real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_refuse_divergence", stopping)
        yield


@pytest.fixture
def interrupted(digitlab: Cli) -> Callable[..., Result]:
    """Train RUN and press Ctrl-C in a step of the training, from 1."""

    def train(step: int = 53, *overrides: str) -> Result:
        with signalled(step, signal.SIGINT):
            return digitlab(*RUN, *overrides)

    return train


@pytest.mark.fault("F3")
@pytest.mark.parametrize("step", [1, 53, 60, 80])
def test_ctrl_c_saves_at_that_very_step(
    step: int,
    interrupted: Callable[..., Result],
    digitlab: Cli,
    home: Path,
    expected: End,
    steps_trained: list[tuple[int, int]],
) -> None:
    stopped = interrupted(step)
    assert stopped.code == 130
    assert "recorded as KILLED" in stopped.err
    short_id = (the_record().delivered.run_id or "")[:8]
    assert f"go on: digitlab resume {short_id}" in stopped.err
    (run,) = the_runs(digitlab)
    assert run["status"] == "KILLED"
    command = run["tags"]["digitlab.command"]
    assert len(steps_trained) == step
    resumed = digitlab("resume", short_id)
    assert resumed.code == 0, resumed.err
    assert f"run {short_id}" in resumed.out, "the same run"
    if step < 4 * STEPS:
        assert (
            f"goes on at epoch {1 + step // STEPS}, step {1 + step % STEPS} of {STEPS}" in resumed.err
        )
    else:
        assert "all epochs are trained" in resumed.err
    every = [(epoch, step) for epoch in range(1, 5) for step in range(1, STEPS + 1)]
    assert steps_trained == every, "no step twice, none left out"
    assert end_of_run(home) == expected
    (run,) = the_runs(digitlab)
    assert run["tags"]["digitlab.command"] == command, "as it was begun"
    assert "digitlab.reproducible" not in run["tags"]


def test_ctrl_c_twice_and_a_kill_in_between(
    interrupted: Callable[..., Result], digitlab: Cli, home: Path, expected: End
) -> None:
    interrupted(31)
    with signalled(41, signal.SIGTERM):
        assert digitlab("resume", the_record().run.record_id).code == 143
    assert digitlab("resume", the_record().run.record_id).code == 0
    assert end_of_run(home) == expected


ALWAYS = ("run_step", "run_checkpoint_half_renamed")


@pytest.mark.fault("F1")
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=[] if place in ALWAYS else in_ci)
        for place in RUN_PLACES
        if place != "run_described"
    ],
)
def test_killed_at(
    place: str,
    home: Path,
    tmp_path: Path,
    digitlab: Cli,
    expected: End,
    steps_trained: list[tuple[int, int]],
) -> None:
    mark = str(tmp_path / "mark")
    process = start(RUN, KILL_PLACE=place, KILL_WHO="controller", KILL_MARK=mark)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    record = the_record()
    resumed = digitlab("resume", record.run.record_id)
    assert resumed.code == 0, resumed.err
    assert f"marked KILLED; go on: digitlab resume {record.run.record_id}" in resumed.err
    assert "damaged" not in resumed.err
    saved = 70 if place == "run_step" else 10
    assert len(steps_trained) == 4 * STEPS - saved, "it went on at its last checkpoint"
    assert end_of_run(home) == expected


@pytest.mark.fault("F1")
@in_ci
def test_a_run_that_had_not_begun_is_started_anew(tmp_path: Path, digitlab: Cli) -> None:
    mark = str(tmp_path / "mark")
    process = start(RUN, KILL_PLACE="run_described", KILL_WHO="controller", KILL_MARK=mark)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    resumed = digitlab("resume", the_record().run.record_id)
    assert resumed.code == 2
    assert "had not begun: start it anew with:" in resumed.err
    assert " ".join(RUN) in resumed.err


@pytest.mark.fault("F1")
@in_ci
def test_killed_at_random_moments(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it does: starts, trains, saves, delivers. A finished run is followed by another."""
    undisturbed_end = undisturbed(tmp_path_factory.mktemp("undisturbed"), LONG)
    today = datetime.date.today().isoformat()
    print(f"the moments of {today}")  # shown if it fails
    dice, kills, conf = random.Random(today), 0, home / "conf"
    whole = 0
    while True:
        found = list(all_records(project.records()))
        line = ["resume", found[0].run.record_id] if found else LONG
        process = start(line, is_real=True)
        if kills < NUM_RANDOM_KILLS:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0.5, 9.0))
            if process.poll() is None:
                process.kill()
                kills += 1
        _, errors = process.communicate(timeout=120)
        if process.returncode == 2 and "had not begun" in errors:
            found[0].delete()
        elif process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, errors
            assert end_of_run(home) == undisturbed_end
            whole += 1
            if kills >= NUM_RANDOM_KILLS:
                break
            home = home.with_name(f"after_{kills}_kills")
            home.mkdir()
            (home / "conf").symlink_to(conf)
            monkeypatch.setenv("DIGITLAB_HOME", str(home))
    assert whole >= 1


@pytest.mark.fault("F3")
def test_ctrl_c_in_a_terminal_of_its_own(digitlab: Cli, home: Path) -> None:
    process = start(LONG)
    await_epochs(process, 2)
    busy = digitlab("resume", the_record().run.record_id)
    assert busy.code == 2
    assert f"is being worked on by process {process.pid}" in busy.err
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on: digitlab resume " in errors
    assert "Traceback" not in errors


def test_damaged_checkpoints_are_told_and_cost_no_bit(
    interrupted: Callable[..., Result],
    digitlab: Cli,
    home: Path,
    expected: End,
    steps_trained: list[tuple[int, int]],
) -> None:
    interrupted(53)
    file = the_record().folder / FILE
    file.write_bytes(file.read_bytes()[:-1000])
    resumed = digitlab("resume", the_record().run.record_id)
    assert resumed.code == 0, resumed.err
    assert f"{file} is damaged" in resumed.err
    assert "the previous one is used" in resumed.err
    assert len(steps_trained) == 53 + 4 * STEPS - 50
    assert end_of_run(home) == expected


def test_with_both_checkpoints_damaged_training_begins_anew(
    interrupted: Callable[..., Result],
    digitlab: Cli,
    home: Path,
    expected: End,
    steps_trained: list[tuple[int, int]],
) -> None:
    interrupted(53)
    folder = the_record().folder
    (folder / FILE).write_bytes(b"")
    (folder / PREVIOUS).write_bytes(bytes(4711))
    resumed = digitlab("resume", folder.name)
    assert resumed.code == 0, resumed.err
    assert f"{folder / FILE} is damaged (it is empty): the previous one is used" in resumed.err
    assert f"{folder / PREVIOUS} is damaged" in resumed.err
    assert "training begins anew" in resumed.err
    assert len(steps_trained) == 53 + 4 * STEPS
    assert end_of_run(home) == expected


def patch_document(record: RunFolder, **changes: Any) -> None:
    file = record.artifacts / "record.json"
    values = json.loads(file.read_text()) | changes
    values["config_sha256"] = config_digest(values["config"])
    file.write_text(json.dumps(values))


def patch_fingerprint(record: RunFolder, fingerprint: str) -> None:
    file = record.folder / "run.json"
    values = json.loads(file.read_text())
    values["tags"]["digitlab.fingerprint"] = fingerprint
    file.write_text(json.dumps(values))


def test_a_comment_that_was_edited_is_no_change(
    interrupted: Callable[..., Result], digitlab: Cli, home: Path, expected: End
) -> None:
    """The record names other bytes; the fingerprint says that they do the same."""
    interrupted(53)
    record = the_record()
    patch_document(record, **changed(record, "code"))
    resumed = digitlab("resume", record.run.record_id)
    assert resumed.code == 0, resumed.err
    assert end_of_run(home) == expected
    assert the_runs(digitlab)[0]["tags"].get("digitlab.reproducible") != "false"


def changed(record: RunFolder, what: str) -> dict[str, Any]:
    values = json.loads((record.artifacts / "record.json").read_text())
    if what == "code":
        files = {**source_files(), "training/loop.py": "0" * 16}
        return {"code": values["code"] | {"source": "0" * 64, "files": files}}
    if what == "data":
        return {"data": values["data"] | {"train_images": "0" * 64}}
    if what == "split":
        return {"data": values["data"] | {"validation_indices": "0" * 64}}
    if what == "arithmetic":
        return {"canary": "0" * 64, "arithmetic": values["arithmetic"] | {"torch": "2.0.0"}}
    return {"threads": 2, "arithmetic": values["arithmetic"] | {"threads": "2"}}


CHANGES = {
    "code": "code: training/loop.py",
    "data": "data: train_images",
    "split": "split: other training images",
    "arithmetic": "was 2.0.0",
    "threads": "threads is 1, was 2",
}


def test_a_change_is_named_and_going_on_by_force_is_recorded(
    interrupted: Callable[..., Result], digitlab: Cli, home: Path, expected: End
) -> None:
    interrupted(53)
    record = the_record()
    files = {
        file: file.read_bytes()
        for file in (record.artifacts / "record.json", record.folder / "run.json")
    }
    for what, named in CHANGES.items():
        for file, content in files.items():
            file.write_bytes(content)
        patch_document(record, **changed(record, what))
        if what == "code":
            patch_fingerprint(record, "0" * 64)
        kept = {file: file.read_bytes() for file in record.folder.rglob("*") if file.is_file()}
        refused = digitlab("resume", record.run.record_id)
        assert refused.code == 2
        assert named in refused.err
        assert "--force" in refused.err
        assert {file: file.read_bytes() for file in kept} == kept, "nothing is lost"
    forced = digitlab("resume", "--force", record.run.record_id)
    assert forced.code == 0, forced.err
    assert end_of_run(home) == expected, "here nothing had changed in truth"
    (run,) = the_runs(digitlab)
    assert run["tags"]["digitlab.reproducible"] == "false"
    (file,) = (home / "mlruns" / "artifacts").rglob("record.json")
    assert json.loads(file.read_text())["reproducible"] is False
    assert run["tags"]["digitlab.fingerprint"] == "", "no sweep takes it for a trial's result"


def test_another_arithmetic_is_noticed(interrupted: Callable[..., Result], digitlab: Cli) -> None:
    """In a process that computes in another way, truly."""
    interrupted(53)
    process = start(["resume", the_record().run.record_id], ATEN_CPU_CAPABILITY="default")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "ATEN_CPU_CAPABILITY is default, was unset" in errors
    assert the_record().run.is_resumable


def test_a_forced_run_that_is_cut_short_again_stays_not_reproducible(
    interrupted: Callable[..., Result], digitlab: Cli, home: Path
) -> None:
    interrupted(53)
    record = the_record()
    patch_document(record, **changed(record, "data"))
    with signalled(3, signal.SIGINT):
        assert digitlab("resume", "--force", record.run.record_id).code == 130
    assert digitlab("resume", record.run.record_id).code == 0, "no further change: no force needed"
    (run,) = the_runs(digitlab)
    assert run["tags"]["digitlab.reproducible"] == "false"


def test_what_cannot_be_gone_on_with_is_told(digitlab: Cli, home: Path) -> None:
    unknown = digitlab("resume", "abcdef")
    assert unknown.code == 2
    assert "no run abcdef was cut short" in unknown.err
    assert digitlab("train", "epochs=1").code == 0
    assert digitlab("train", "optimizer=sgd", "optimizer.learning_rate=1e38").code == 1
    before = the_runs(digitlab)
    for run in before:
        refused = digitlab("resume", run["run_id"][:8])
        assert refused.code == 2
        assert f"has ended as {run['status']}: there is nothing" in refused.err
        assert "Traceback" not in refused.err
    assert {run["status"] for run in before} == {"FINISHED", "FAILED"}
    assert the_runs(digitlab) == before


def test_a_diverged_run_whose_store_is_away_is_refused_too(digitlab: Cli) -> None:
    away = "tracking.uri=http://127.0.0.1:9"
    digitlab("train", "optimizer=sgd", "optimizer.learning_rate=1e38", away)
    refused = digitlab("resume", the_record().run.record_id)
    assert refused.code == 2
    assert "has ended as FAILED" in refused.err
    assert the_record().run.tags["digitlab.diverged.step"] == "2"


def test_a_trial_is_gone_on_with_by_its_sweep(
    digitlab: Cli, interrupted: Callable[..., Result]
) -> None:
    interrupted(53)
    record = the_record()
    record.run.parent, record.run.tags["sweep"] = "x", "5e1f"
    record.save()
    refused = digitlab("resume", record.run.record_id)
    assert refused.code == 2
    assert "is a trial of sweep 5e1f: resume that one" in refused.err
    assert the_record().run.status == "KILLED"


def test_a_damaged_or_missing_document_is_told(
    digitlab: Cli, interrupted: Callable[..., Result]
) -> None:
    interrupted(53)
    file = the_record().artifacts / "record.json"
    file.write_text(file.read_text()[:-100])
    refused = digitlab("resume", the_record().run.record_id)
    assert refused.code == 1
    assert str(file) in refused.err
    assert "Traceback" not in refused.err
    file.unlink()
    missing = digitlab("resume", the_record().run.record_id)
    assert missing.code == 2
    assert "had not begun: start it anew with:" in missing.err
    assert the_record().run.is_resumable


# --- a full disk ---


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system of 2 MB for the records; the store is on another one."""
    records = home / "mlruns" / "records"
    records.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "digitlab-test", str(records)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is for root")
    yield records
    subprocess.run(["umount", str(records)], check=True)


def fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
        while True:
            handle.write(bytes(4096))


@pytest.mark.fault("F12")
@pytest.mark.parametrize("saved", [0, 1, 3])
def test_a_full_disk_fails_the_run_and_costs_no_checkpoint(
    saved: int,
    small_disk: Path,
    home: Path,
    digitlab: Cli,
    expected: End,
    steps_trained: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody else fills it to the last byte just before a checkpoint is written."""
    filler, written = small_disk / "filler", [0]

    def filling(file: Path, content: bytes) -> None:
        if written[0] == saved:
            fill(filler)
        written[0] += 1
        write_atomically(file, content)

    monkeypatch.setattr(checkpoint, "write_atomically", filling)
    failed = digitlab(*RUN)
    (folder,) = (file.parent for file in small_disk.glob("*/run.json"))
    assert failed.code == 1
    assert f"no checkpoint can be written to {folder / FILE}: No space left on device" in failed.err
    assert "kB are needed, 0 kB are free" in failed.err
    assert "recorded as FAILED" in failed.err
    assert f"go on: digitlab resume {the_record().delivered.run_id[:8]}" in failed.err
    assert "Traceback" not in failed.err
    assert (folder / FILE).exists() == (saved > 0)
    assert (folder / PREVIOUS).exists() == (saved > 1)
    (run,) = the_runs(digitlab)
    assert (run["status"], run["delivered"]) == ("FAILED", True)
    assert "No space left" in run["tags"]["digitlab.error"]
    filler.unlink()
    monkeypatch.setattr(checkpoint, "write_atomically", write_atomically)
    steps_trained.clear()
    resumed = digitlab("resume", folder.name)
    assert resumed.code == 0, resumed.err
    assert "damaged" not in resumed.err
    assert len(steps_trained) == 4 * STEPS - 5 * saved
    assert end_of_run(home) == expected
    (run,) = the_runs(digitlab)
    assert "Traceback" not in digitlab("show", run["run_id"]).out


@pytest.mark.fault("F12")
def test_a_disk_that_is_full_at_the_very_end_leaves_room_for_it(
    small_disk: Path, digitlab: Cli, expected: End, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RunFolder.finish

    def filling(folder: RunFolder, *arguments: Any) -> None:
        fill(small_disk / "filler")
        real(folder, *arguments)

    monkeypatch.setattr(RunFolder, "finish", filling)
    result = digitlab(*RUN)
    assert result.code == 0, result.err
    (run,) = the_runs(digitlab)
    assert (run["status"], run["delivered"]) == ("FINISHED", True)
    (small_disk / "filler").unlink()
    assert end_of_run(home) == expected


@pytest.mark.fault("F12")
def test_a_file_that_may_not_grow_fails_the_run_and_it_goes_on_later(
    home: Path, digitlab: Cli, expected: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for everybody who may not mount: ulimit -f. Already the first cannot be written."""

    def limited(file: Path, content: bytes) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            write_atomically(file, content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", limited)
        failed = digitlab(*RUN)
    folder = the_record().folder
    assert failed.code == 1
    assert f"no checkpoint can be written to {folder / FILE}: File too large" in failed.err
    assert not list(folder.glob("*checkpoint*"))
    assert the_runs(digitlab)[0]["status"] == "FAILED"
    assert digitlab("resume", folder.name).code == 0
    assert end_of_run(home) == expected
