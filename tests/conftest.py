"""Fixtures: a project folder of its own for each test, real MNIST where there is some, the CLI.

Everything lies in a folder with an odd name.
"""

import getpass
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from digitlab import cli
from digitlab.config.composition import compose
from digitlab.config.schema import Config
from digitlab.tracking.connection import sqlite_store
from tests.support.cli import CHECKOUT, Cli, Result, start_module
from tests.support.servers import TeamServer, free_port, missing_for_a_team, start_server


def pytest_configure() -> None:
    """Every temporary folder has a name that shells, addresses and Hydra's grammar must quote."""
    name, folder = f"größe (1) = {getpass.getuser()}", Path(tempfile.gettempdir())
    if folder.name != name:  # as it is already in a worker of pytest-xdist
        folder /= name
        folder.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Emulated processors first: at the end a minute of one of them would leave the other core idle."""
    items.sort(key=lambda item: "emulated" not in item.name)


@pytest.fixture(scope="session", autouse=True)
def _session() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # see heed_interrupts
    torch.set_num_threads(1)
    sqlite_store.ensure_template()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the checkout's conf/ and an empty mlruns/; nothing is inherited.

    Pictures take most of the time of a short run: a test about them asks for record.plots=auto.
    """
    for name in [n for n in os.environ if n.startswith(("MLFLOW_", "DIGITLAB_"))]:
        if name != "DIGITLAB_DATA":
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    shutil.copytree(CHECKOUT / "conf", folder / "conf")
    config = folder / "conf" / "config.yaml"
    config.write_text(config.read_text().replace("plots: auto", "plots: never"))
    monkeypatch.setenv("DIGITLAB_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder of real MNIST, in torchvision's layout."""
    folder = os.environ.get("DIGITLAB_DATA")
    if not folder or not (Path(folder) / "MNIST" / "raw").is_dir():
        pytest.skip("no MNIST: set DIGITLAB_DATA to a folder that holds MNIST/raw")
    return Path(folder)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server for every test that does not stop it."""
    port = free_port()
    process = start_server(tmp_path_factory.mktemp("server"), port)
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="session")
def running_team() -> Iterator[TeamServer]:
    if missing := missing_for_a_team():
        pytest.skip(f"no team's server without {missing}")
    server = TeamServer()
    try:
        server.start()
        yield server
    finally:
        server.delete()


@pytest.fixture
def team(running_team: TeamServer, monkeypatch: pytest.MonkeyPatch) -> TeamServer:
    """A team's server, and this process is one of its users."""
    for name, value in running_team.login(f"user{secrets.token_hex(4)}").items():
        monkeypatch.setenv(name, value)
    return running_team


@pytest.fixture
def digitlab(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process."""

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        try:
            cli.main(list(arguments))
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def digitlab_process(home: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the command line in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, is_real: bool = False, **environment: str) -> subprocess.Popen[str]:
        process = start_module(
            ["digitlab.cli", *arguments],
            environment,
            is_real=is_real,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,  # as a shell does, so that a test can press Ctrl-C for all of it
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """A checked configuration from overrides, through the real conf/."""
    return lambda *overrides: compose(overrides)
