"""Fixtures: a disk of which operations fail, a tracking server behind a failing proxy, fresh homes."""

import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.disk import COMPILER, FailingDisk
from tests.faults.proxy import FailingProxy
from tests.support.cli import CHECKOUT
from tests.support.servers import free_port, start_server

Served = tuple[Path, FailingProxy]
NewHome = Callable[[], Path]


@pytest.fixture(scope="session")
def disk() -> Iterator[FailingDisk]:
    if COMPILER is None:
        pytest.skip("no C compiler: files cannot be made to fail")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # LD_PRELOAD cannot quote the tests' own
        yield FailingDisk(Path(folder))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server's folder, and a proxy before it."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    server = start_server(folder, port)
    proxy = FailingProxy(port)
    yield folder, proxy
    proxy.close()
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.fixture
def new_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewHome:
    """Each has another name: processes that have opened a store keep it open."""
    counter = itertools.count()

    def make() -> Path:
        folder = tmp_path / f"{next(counter)}"
        folder.mkdir()
        (folder / "conf").symlink_to(CHECKOUT / "conf")
        monkeypatch.setenv("DIGITLAB_HOME", str(folder))
        return folder

    return make
