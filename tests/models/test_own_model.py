"""A user's own model, optimizer and scheduler do all that digitlab's do, with the same promises."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from digitlab.config.composition import compose
from digitlab.config.kinds import OwnConfig
from digitlab.errors import UsageError
from digitlab.models.build import build_model
from digitlab.runs.document import config_digest
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.names import RECORD_FILE
from digitlab.tracking.store import RunStore
from digitlab.training.optimizers import build_optimizer
from digitlab.training.schedules import build_schedule
from tests.support.cli import Cli, Start
from tests.support.own import LAYERS, MODELS, write_project

OWN = ("model=mlp", "optimizer=sign", "scheduler=polynomial", "epochs=2")


def last_run(digitlab: Cli) -> tuple[str, Any]:
    """Its id and its record.json."""
    run_id = str(json.loads(digitlab("runs", "--json").out)[0]["run_id"])
    store = RunStore(resolve_uri(None))
    return run_id, json.loads(store.content(store.find(run_id), RECORD_FILE))


def test_trained_swept_and_reproduced(digitlab: Cli, home: Path) -> None:
    write_project(home)
    trained = digitlab("train", *OWN, "checkpoint.weights=best")
    assert (trained.code, "FINISHED" in trained.out) == (0, True), trained.err
    run, document = last_run(digitlab)
    assert document["components"]["model"]["name"] == "mlp"
    assert document["components"]["model"]["files"].keys() == {"models.py", "layers.py"}
    again = digitlab("reproduce", run)
    assert (again.code, "IDENTICAL" in again.out) == (0, True), again.out + again.err
    Image.new("L", (28, 28), 255).save(home / "x.png")
    assert digitlab("promote", run, "mine@best").code == 0
    assert digitlab("predict", "mine@best", str(home / "x.png"), "--no-normalise").code == 0
    swept = digitlab("sweep", *OWN, "model.hidden_units=8,16", "seed=0,1", "workers=2")
    assert swept.code == 0, swept.err
    num_runs = len(json.loads(digitlab("runs", "--json").out))
    assert digitlab("sweep", *OWN, "model.hidden_units=8,16", "seed=0,1").code == 0
    assert len(json.loads(digitlab("runs", "--json").out)) == num_runs


def test_a_changed_source_is_named_and_a_missing_component_cannot_be_reproduced(
    digitlab: Cli, digitlab_process: Start, home: Path
) -> None:
    write_project(home)
    assert digitlab("train", *OWN).code == 0
    run, _ = last_run(digitlab)
    (home / "layers.py").write_text(LAYERS.replace("nn.ReLU", "nn.ELU"))
    process = digitlab_process("reproduce", run, is_real=True)
    out, _ = process.communicate()
    assert process.returncode == 4, out
    assert "layers.py (of model=mlp)" in out
    (home / "models.py").write_text(MODELS.replace('"mlp"', '"other"').lstrip())
    process = digitlab_process("reproduce", run, is_real=True)
    out, _ = process.communicate()
    assert process.returncode == 5
    assert f"its model mlp is not registered in this environment: it was of {home.name}" in out


def test_a_hostile_name_in_a_record_imports_nothing(digitlab: Cli, home: Path, tmp_path: Path) -> None:
    write_project(home)
    assert digitlab("train", *OWN).code == 0
    _, document = last_run(digitlab)
    (home / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    for name in ("evil", "evil:boom", "../evil", "os.system"):
        document["config"]["model"]["name"] = name
        document["components"]["model"]["name"] = name
        document["config_sha256"] = config_digest(document["config"])
        file = tmp_path / "record.json"
        file.write_text(json.dumps(document))
        refused = digitlab("reproduce", str(file))
        assert refused.code == 5, refused.out
        assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("replaced", "by", "told"),
    [
        ("nn.Linear(hidden_units, num_classes)", "nn.Linear(hidden_units, 3)", "(2, 10), got (2, 3)"),
        ("nn.Linear(pixels,", "nn.Linear(pixels + 1,", "RuntimeError: mat1 and mat2 shapes"),
        ("math.prod(image_shape)", "math.product(1)", "models.py, line 27: AttributeError"),
    ],
)
def test_a_model_that_does_not_fit_is_told_before_training(
    digitlab: Cli, home: Path, replaced: str, by: str, told: str
) -> None:
    write_project(home, MODELS.replace(replaced, by, 1))
    for command in (["train"], ["sweep", "seed=0,1"]):
        refused = digitlab(*command, "model=mlp")
        assert refused.code == 2
        *_, line = refused.err.splitlines()
        assert line.startswith("digitlab: model=mlp of models.py: ")
        assert told in line
    assert not list((home / "mlruns").glob("records/*"))


def test_what_fails_in_a_training_is_named_by_its_line(digitlab: Cli, home: Path) -> None:
    failing = (
        "if self.training:\n            raise ValueError('seven')\n        return self.layers(images)"
    )
    write_project(home, MODELS.replace("return self.layers(images)", failing))
    failed = digitlab("train", "model=mlp")
    assert failed.code == 1
    assert "the run failed: models.py, line 42: ValueError: seven" in failed.err
    assert "models.py, line 42: ValueError: seven" in digitlab("show", last_run(digitlab)[0]).out


def test_an_own_optimizer_goes_on_from_its_state_to_the_same_bits(home: Path) -> None:
    write_project(home)
    config = compose(["optimizer=sign"]).optimizer
    start = [torch.randn(3, 4), torch.randn(4)]
    one, other = ([p.clone().requires_grad_() for p in start] for _ in range(2))
    steps = [[torch.randn(p.shape) for p in start] for _ in range(6)]
    whole, first = build_optimizer(config, one), build_optimizer(config, other)
    for gradients in steps:
        whole.step([g.clone() for g in gradients], 0.1)
    for gradients in steps[:3]:
        first.step([g.clone() for g in gradients], 0.1)
    second = build_optimizer(config, other)
    second.restore({name: value.clone() for name, value in first.state().items()})
    for gradients in steps[3:]:
        second.step([g.clone() for g in gradients], 0.1)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert second.state().keys() == whole.state().keys()


def test_an_own_scheduler_decides_every_step(home: Path) -> None:
    write_project(home)
    schedule = build_schedule(
        compose(["scheduler=polynomial", "scheduler.power=2"]).scheduler,
        0.5,
        steps_per_epoch=5,
        epochs=2,
    )
    assert [schedule(step) for step in (0, 5, 9)] == pytest.approx([0.5, 0.125, 0.005])


def test_what_is_no_model_is_refused(home: Path) -> None:
    write_project(home, MODELS.replace("class MLP(nn.Module)", "class MLP"))
    config = compose(["model=mlp"]).model
    assert isinstance(config, OwnConfig)
    with pytest.raises(UsageError, match=r"must give a torch\.nn\.Module, got MLP"):
        build_model(config, 0, image_shape=(1, 28, 28), num_classes=10)
