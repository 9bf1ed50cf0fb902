"""Where a run trains. A pretended GPU shows what is planned; what it computes needs a real one."""

import json
import subprocess
import sys

import pytest
import torch

from digitlab.config.composition import compose
from digitlab.errors import ConfigError
from digitlab.models.build import build_model
from digitlab.sweep.planning.plan import plan, refreshed
from digitlab.sweep.workers.gpus import gpu_environment, visible_gpus
from digitlab.training.devices import choose_device
from tests.support.cli import Cli

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digitlab.sweep.planning.identity.GPU_DRIVERS", ("/proc",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@without_gpu
def test_a_sweep_on_a_missing_gpu_is_a_mistake_that_starts_nothing(digitlab: Cli) -> None:
    result = digitlab("sweep", "device=cuda", "seed=0,1")
    assert result.code == 2
    assert "device must be auto or cpu on this machine (no GPU is usable), got cuda" in result.err
    assert "run_id" not in digitlab("runs", "--json").out


@pytest.mark.usefixtures("pretended_gpu")
def test_a_result_of_one_device_is_not_taken_for_that_of_another() -> None:
    manifest = plan(["device=cpu,cuda,auto", "seed=0"])
    on_cpu, on_gpu, wherever = (trial.fingerprint for trial in manifest.trials)
    assert on_cpu != on_gpu
    assert wherever == on_gpu
    assert manifest.device == "cuda"
    assert plan(["device=cpu", "seed=0,1"]).device == "cpu"


@without_gpu
def test_a_sweep_resumed_on_a_machine_without_its_gpu_is_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("digitlab.sweep.planning.identity.GPU_DRIVERS", ("/proc",))
        elsewhere.setattr(torch.cuda, "is_available", lambda: True)
        wherever, on_gpu = plan(["device=auto", "seed=0,1"]), plan(["device=cuda", "seed=0,1"])
    here = refreshed(wherever)
    assert (wherever.device, here.device) == ("cuda", "cpu")
    assert here.key != wherever.key
    with pytest.raises(ConfigError, match="no GPU is usable"):
        refreshed(on_gpu)


def test_workers_see_only_gpus_that_their_user_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8932f937,-1")
    environment = gpu_environment(visible_gpus(), per_gpu=2)
    seen = [environment(i)["CUDA_VISIBLE_DEVICES"] for i in range(5)]
    assert seen == ["3", "3", "GPU-8932f937", "GPU-8932f937", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_a_gpu_is_set_up_without_the_slow_parts_of_torch() -> None:
    """The warnings of what is not deterministic are on, and 892 modules are not imported."""
    program = (
        "import sys, torch\n"
        "torch.cuda.is_available = lambda: True\n"
        "from digitlab.training.devices import choose_device\n"
        "assert choose_device('auto', 'native').type == 'cuda'\n"
        "assert torch.get_deterministic_debug_mode() == 1\n"
        "assert not {'torch._inductor', 'torch._dynamo'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@with_gpu
def test_a_gpu_rounds_no_more_coarsely_than_a_cpu() -> None:
    model = build_model(
        compose(["model=cnn"]).model, seed=0, image_shape=(1, 28, 28), num_classes=10
    ).eval()
    images = torch.randn(100, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        here = model(images)
        there = model.to(choose_device("cuda", "native"))(images.cuda()).cpu()
    assert (there - here).norm() / here.norm() < 1e-5  # with TF32: 4e-4


@with_gpu
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_a_gpu_gives_the_same_bits_twice_and_says_nothing(model: str, digitlab: Cli) -> None:
    for study in ("once", "again"):
        result = digitlab("train", f"model={model}", "device=cuda", "epochs=2", f"study={study}")
        assert result.code == 0, result.err
        assert "Warning" not in result.err
    once, again = (_weights(digitlab, study) for study in ("once", "again"))
    assert once == again


def _weights(digitlab: Cli, study: str) -> str:
    (run,) = json.loads(digitlab("runs", "--study", study, "--json").out)
    assert run["tags"]["digitlab.device"] == "cuda"
    return str(run["tags"]["digitlab.weights"])
