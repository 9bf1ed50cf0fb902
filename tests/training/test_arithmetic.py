"""What decides rounding: the portable kind is the same everywhere, and the canary tells kinds apart."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from digitlab.config import project
from digitlab.config.schema import Config
from digitlab.errors import ConfigError
from digitlab.runs import document as documents
from digitlab.runs.trace import Trace
from digitlab.tracking.names import RECORD_FILE
from digitlab.tracking.run_folder import all_records
from digitlab.training import arithmetic
from digitlab.training.arithmetic import PORTABLE
from tests import golden
from tests.support.cli import CHECKOUT, LEVEL, Cli, in_ci, slow
from tests.support.short_training import first_steps

MakeConfig = Callable[..., Config]

# Each library's own way to use less than the processor has, also ways that `prepare` does not know.
LOWERED = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-FMA,-FMA4",
}
QEMU = shutil.which("qemu-x86_64")


def traces_of(home: Path, *arguments: str, **environment: str) -> dict[str, Trace]:
    """Of the runs that a command line records in a home of its own, by model."""
    if not home.exists():
        shutil.copytree(CHECKOUT / "conf", home / "conf")
    before = set(home.rglob(RECORD_FILE))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in arithmetic.VARIABLES and not name.startswith("MLFLOW_")
    }
    subprocess.run(
        [sys.executable, "-m", "digitlab.cli", *arguments, "record.plots=never"],
        env={**inherited, "DIGITLAB_HOME": str(home), **environment},
        check=True,
        capture_output=True,
    )
    found = {}
    for file in set(home.rglob(RECORD_FILE)) - before:
        document = documents.parse(file.read_bytes())
        assert document.trace is not None
        found[document.config["model"]["name"]] = document.trace
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    """By `digitlab train` in portable arithmetic: the trace of each model."""
    home = tmp_path_factory.mktemp("trained") / "home"
    found: dict[str, Trace] = {}
    for model in golden.MODELS:
        found |= traces_of(home, "train", f"model={model}", *golden.OVERRIDES)
    return found


@pytest.mark.parametrize("model", golden.MODELS)
def test_the_golden_losses_are_reproduced_to_the_bit(model: str, make_config: MakeConfig) -> None:
    config = make_config(f"model={model}", *golden.OVERRIDES)
    assert golden.measure(model, config) == golden.read(model)


@pytest.mark.parametrize("model", golden.MODELS)
def test_the_knob_does_what_the_variables_do(
    model: str, trained: dict[str, Trace], tmp_path: Path
) -> None:
    arguments = ("train", f"model={model}", *golden.OVERRIDES)
    (again,) = traces_of(tmp_path / "again", *arguments, **PORTABLE).values()
    assert again == trained[model]
    assert again.step_losses == golden.read(model).step_losses


@pytest.mark.parametrize("executor", ["processes", "inprocess"])
def test_a_portable_sweep_has_the_bits_of_single_runs(
    executor: str, trained: dict[str, Trace], tmp_path: Path
) -> None:
    models = f"model={','.join(golden.MODELS)}"
    found = traces_of(tmp_path / "swept", "sweep", models, *golden.OVERRIDES, f"executor={executor}")
    assert found == trained


@pytest.mark.parametrize("model", golden.MODELS)
def test_portable_arithmetic_is_the_same_with_fewer_instructions(
    model: str, make_config: MakeConfig
) -> None:
    config = make_config(f"model={model}", *golden.OVERRIDES)
    found = first_steps(config, len(golden.read(model).step_losses), **LOWERED)
    assert found.losses == golden.read(model).step_losses
    assert found.weights == golden.read(model).weights


@pytest.mark.skipif(QEMU is None, reason="no qemu-x86_64: install qemu-user")
@pytest.mark.parametrize(
    ("model", "processor"),
    [
        pytest.param("cnn", "Haswell", marks=in_ci),
        pytest.param("cnn", "Nehalem", marks=slow),
        pytest.param("logistic_regression", "Haswell", marks=slow),
        pytest.param("logistic_regression", "Nehalem", marks=slow),  # in CI by its record, below
    ],
)
def test_portable_arithmetic_is_the_same_on_emulated_processors(
    model: str, processor: str, make_config: MakeConfig
) -> None:
    """One of 2008 with SSE4.2, one of 2013 with AVX2. Import torch: 30 s; a CNN step: 7 s."""
    assert QEMU is not None
    config = make_config(f"model={model}", *golden.OVERRIDES)
    num_steps = 10 if LEVEL == "1" else 3
    emulated = first_steps(config, num_steps, emulator=[QEMU, "-cpu", processor])
    assert emulated == first_steps(config, num_steps)


@pytest.mark.skipif(QEMU is None, reason="no qemu-x86_64: install qemu-user")
@pytest.mark.parametrize(
    ("kind", "verdicts"),
    [
        pytest.param("portable", ["IDENTICAL"], marks=in_ci),
        pytest.param("native", ["IDENTICAL", "SAME COMPUTATION, OTHER ROUNDING"], marks=slow),
    ],
)
def test_a_record_is_reproduced_on_an_emulated_processor(
    kind: str,
    verdicts: list[str],
    digitlab: Cli,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process that trains again is emulated, the one that judges is not: a minute or two each."""
    assert QEMU is not None
    line = ("train", "model=logistic_regression", "epochs=1", "record.plots=never")
    traces_of(home, *line, f"arithmetic={kind}")
    (file,) = home.rglob(RECORD_FILE)
    interpreter = tmp_path / "python"
    command = shlex.join([QEMU, "-cpu", "Nehalem", sys.executable])
    interpreter.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)  # would choose kernels of another processor
    monkeypatch.setattr(sys, "executable", str(interpreter))  # a program that it starts is not emulated
    verdict = json.loads(digitlab("reproduce", str(file), "--json").out)
    assert verdict["kind"] in verdicts, verdict


def test_the_canary_is_of_the_arithmetic_alone(make_config: MakeConfig) -> None:
    plain, two_threads = make_config("model=cnn"), make_config("model=cnn", "threads=2")
    native, again = first_steps(plain, 2), first_steps(plain, 2)
    assert native.canary == again.canary == again.canary_again, "what is computed does not change it"
    others = [
        first_steps(make_config("model=cnn", "arithmetic=portable"), 0),
        first_steps(two_threads, 0),
        first_steps(plain, 0, has_onednn=False),
    ]
    assert len({native.canary, *(training.canary for training in others)}) == 1 + len(others)


@in_ci
def test_the_canary_hears_each_variable_of_the_arithmetic(make_config: MakeConfig) -> None:
    plain = make_config("model=cnn")
    trainings = [
        first_steps(plain, 0),
        first_steps(make_config("model=cnn", "arithmetic=portable"), 0),
        first_steps(make_config("model=cnn", "threads=2"), 0),
        first_steps(plain, 0, has_onednn=False),
        *(first_steps(plain, 0, **{name: value}) for name, value in PORTABLE.items()),
    ]
    assert len({training.canary for training in trainings}) == len(trainings)


@slow
@pytest.mark.parametrize("model", golden.MODELS)
def test_an_equal_canary_promises_equal_bits(model: str, make_config: MakeConfig) -> None:
    """Of settings that may be what this processor has anyhow; on one with AVX-512 three move bits."""
    config = make_config(f"model={model}")
    native = first_steps(config, 30)
    for name, value in LOWERED.items():
        lowered = first_steps(config, 30, **{name: value})
        assert lowered == native or lowered.canary != native.canary, name


def test_the_canary_draws_no_random_numbers() -> None:
    before = torch.default_generator.get_state()
    arithmetic.canary_of.cache_clear()
    arithmetic.canary(threads=1, device="cpu")
    assert torch.equal(torch.default_generator.get_state(), before)


def test_a_process_that_computes_natively_cannot_become_portable(digitlab: Cli) -> None:
    arithmetic.prepare("native")
    before = {name: os.environ.get(name) for name in PORTABLE}
    result = digitlab("train", "arithmetic=portable")
    assert result.code == 2
    assert "arithmetic=portable cannot follow another arithmetic in the same process" in result.err
    assert list(all_records(project.records())) == []
    after = {name: os.environ.get(name) for name in PORTABLE}
    assert after == before, "what is trained next is not told to be portable"
    arithmetic.prepare("native")


def test_a_portable_process_cannot_become_native(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PORTABLE.items():
        monkeypatch.setenv(name, value)
    result = digitlab("train")
    assert result.code == 2
    assert "arithmetic=native cannot be had in this process" in result.err
    assert all(name in result.err for name in PORTABLE)
    script = "from digitlab.training import arithmetic as a; a.prepare('portable'); a.prepare('native')"
    inherited = {k: v for k, v in os.environ.items() if k not in PORTABLE}
    done = subprocess.run([sys.executable, "-c", script], env=inherited, capture_output=True, text=True)
    assert ConfigError.__name__ in done.stderr


@pytest.mark.parametrize(
    ("override", "told"), [("threads=2", "threads=1, got 2"), ("device=cuda", "device=cpu")]
)
def test_what_portable_arithmetic_cannot_be_had_with(override: str, told: str, digitlab: Cli) -> None:
    result = digitlab("train", "arithmetic=portable", override)
    assert result.code == 2
    assert f"arithmetic=portable needs {told}" in result.err


@pytest.mark.parametrize(
    "overrides",
    [
        ("arithmetic=native,portable",),
        ("arithmetic=choice(native,portable)", "sweep.search=random", "trials=2", "seed=range(5)"),
        ("experiment=usual,portable",),
    ],
    ids=["grid", "search", "presets"],
)
def test_a_sweep_of_two_arithmetics_is_refused_before_it_starts(
    overrides: tuple[str, ...], digitlab: Cli, home: Path
) -> None:
    for name, text in {"usual": "epochs: 2", "portable": "arithmetic: portable"}.items():
        (home / f"conf/experiment/{name}.yaml").write_text(f"# @package _global_\n{text}\n")
    result = digitlab("sweep", *overrides)
    assert result.code == 2
    assert "make two sweeps, arithmetic=native and arithmetic=portable" in result.err
    assert "nothing was started" in result.err
    assert list(all_records(project.records())) == []
    assert not list(project.sweeps().glob("*"))
