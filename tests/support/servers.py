"""Real MLflow servers for tests of what is recorded on one: a plain one, and a team's."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from digitlab.tracking.connection.location import unreachable
from tests.support.cli import CHECKOUT

STARTS_WITHIN_SECONDS = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A real MLflow server, up and answering."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{folder / 'server.db'}"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ],
        env={
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    await_server(process, port)
    return process


def await_server(process: subprocess.Popen[Any], port: int) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while unreachable(f"http://127.0.0.1:{port}"):
        assert process.poll() is None, "the server died"
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.2)


class TeamServer:
    """What `make server` runs, with a database and artifacts in a folder of its own.

    settings: environment variables of docs/team_server/start.sh.
    """

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="digitlab-", dir="/tmp"))  # short, for a socket
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._settings = {
            "PYTHON": sys.executable,
            "SERVER_FOLDER": str(self.folder),
            "SERVER_PORT": str(self.port),
            "SERVER_WORKERS": "1",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "docs/team_server/start.sh"],
                cwd=CHECKOUT,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await_server(self._process, self.port)

    def kill(self) -> None:
        """The server and its database at once, as a power cut does."""
        assert self._process is not None, "started"
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(FileNotFoundError, psutil.NoSuchProcess):  # there is no database any more
            database = psutil.Process(self._database_pid())
            if str(self.folder) in " ".join(database.cmdline()):
                database.kill()
        self._process.wait()

    def delete(self) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)  # PostgreSQL's last process still ends

    def login(self, user: str) -> dict[str, str]:
        """A new user's environment variables."""
        line = [sys.executable, str(CHECKOUT / "docs" / "team_server" / "add_user.py"), user]
        told = subprocess.run(
            line, env=self._environment(), check=True, capture_output=True, text=True
        ).stdout
        words = [word for word in told.split() if word != "export"]
        return dict(word.split("=", 1) for word in words)

    def query(self, statement: str) -> list[tuple[str, ...]]:
        rows = self._database("psql", "-d", "digitlab", "-Atc", statement).splitlines()
        return [tuple(row.split("|")) for row in rows]

    def dump(self) -> str:
        """The whole database as text."""
        return self._database("pg_dump", "digitlab")

    def cpu_seconds(self) -> float:
        """Of all its processes that run now, the database's too."""
        assert self._process is not None, "started"
        roots = [psutil.Process(pid) for pid in (self._process.pid, self._database_pid())]
        return sum(_cpu_of(each) for root in roots for each in (root, *root.children(recursive=True)))

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _database_pid(self) -> int:
        return int((self.folder / "postgresql" / "postmaster.pid").read_text().splitlines()[0])

    def _database(self, *line: str) -> str:
        where = {"PGHOST": str(self.folder / "postgresql")}
        done = subprocess.run(
            line, env={**os.environ, **where}, check=True, capture_output=True, text=True
        )
        return done.stdout

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        return {**inherited, **self._settings}


def _cpu_of(process: psutil.Process) -> float:
    """With what its children have used that have ended."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0


def missing_for_a_team() -> str:
    """What a TeamServer needs and is not here; nothing: "" ."""
    packages = [name for name in ("psycopg", "flask_wtf") if importlib.util.find_spec(name) is None]
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) and not shutil.which("initdb"):
        packages.append("postgresql")
    return " ".join(packages)
