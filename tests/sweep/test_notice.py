"""What is told when a sweep ends, to whom, and what it costs where nobody listens."""

import base64
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from digitlab.config import project
from digitlab.errors import UsageError
from digitlab.sweep.ending import notice
from digitlab.sweep.ending.stop_rule import TimeLimit
from tests.support.cli import Cli, Start
from tests.support.processes import is_training, wait_for
from tests.support.servers import free_port
from tests.support.sweeps import tree

QUICK = ("epochs=1", "executor=inprocess")


class Listener(ThreadingHTTPServer):
    """Notes what is posted to it. answer: the status that it answers with; None: it never does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: int | None = 200
        self.posts: list[tuple[str, dict[str, str], Any]] = []
        self.gone = threading.Event()

    def address(self, userinfo: str = "", path: str = "/hook") -> str:
        return f"http://{userinfo}127.0.0.1:{self.server_port}{path}"

    @property
    def message(self) -> dict[str, Any]:
        """The only one."""
        ((_, _, message),) = self.posts
        return message  # type: ignore[no-any-return]


class Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, dict(self.headers), json.loads(body)))
        if self.server.answer is None:
            self.server.gone.wait(30)
            return
        self.send_response(self.server.answer)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.gone.set()
    server.shutdown()
    server.server_close()


def test_a_sweep_that_has_finished_is_told_once(
    digitlab: Cli, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["sweep", *QUICK, "study=told", "optimizer.learning_rate=1e-6,0.01"]
    monkeypatch.setattr("sys.argv", ["digitlab", *line, "--notify", listener.address()])
    result = digitlab(*line, "--notify", listener.address())
    assert result.code == 0, result.err
    (own,), trials = tree("told")
    best = trials[1]
    message = listener.message
    assert message.pop("seconds") > 0
    metrics = message["best"].pop("metrics")
    assert metrics["chosen/validation_accuracy"] == best.metrics["chosen/validation_accuracy"]
    assert metrics["test/accuracy"] == best.metrics["test/accuracy"]
    assert message == {
        "study": "told",
        "sweep": own.tags["digitlab.sweep"],
        "name": "learning_rate",
        "status": "finished",
        "counts": {"trials": 2, "finished": 2, "pruned": 0, "failed": 0, "left": 0},
        "metric": "validation/accuracy",
        "best": {
            "trial": 1,
            "name": "lr=0.01",
            "run_id": best.run_id,
            "knobs": {"optimizer.learning_rate": "0.01"},
        },
        "command": f"digitlab {' '.join(line)}",
        "notes": [],
        "error": None,
    }
    path, headers, _ = listener.posts[0]
    assert path == "/hook"
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers
    digitlab("resume", message["sweep"], f"--notify={listener.address(path='/again')}")
    assert [(path, m["status"]) for path, _, m in listener.posts] == [
        ("/hook", "finished"),
        ("/again", "finished"),
    ]


def test_failures_are_told_and_numbers_that_json_lacks_are_null(
    digitlab: Cli, listener: Listener
) -> None:
    result = digitlab(
        *("sweep", "epochs=1", "executor=inprocess", "study=bad", "optimizer=sgd", "model=cnn"),
        *("optimizer.learning_rate=0.01,1e30", f"--notify={listener.address()}"),
    )
    assert result.code == 1
    message = listener.message
    assert message["status"] == "failed"
    assert message["counts"] == {"trials": 2, "finished": 1, "pruned": 0, "failed": 1, "left": 0}
    assert message["error"] is None


def test_a_sweep_that_fails_as_a_whole_is_told(
    digitlab: Cli, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    from digitlab.errors import DigitlabError
    from digitlab.sweep.workers.runner import Runner

    def run(self: Runner) -> None:
        raise DigitlabError("no more disk at http://me:secret@host/")

    monkeypatch.setattr(Runner, "run", run)
    line = ["sweep", *QUICK, "study=bad", "seed=0,1", f"--notify={listener.address()}"]
    assert digitlab(*line).code == 1
    message = listener.message
    assert (message["status"], message["best"], message["counts"]["left"]) == ("failed", None, 2)
    assert message["error"] == "no more disk at http://me:***@host/"


def test_a_stopped_sweep_tells_how_many_are_left(
    digitlab: Cli, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimeLimit, "is_over", lambda _: True)
    line = ["sweep", *QUICK, "study=cut", "seed=0,1", "--for=1h"]
    assert digitlab(*line, f"--notify={listener.address()}").code == 0
    message = listener.message
    assert (message["status"], message["counts"]["left"]) == ("stopped", 2)
    assert "2 of 2 trials are left" in message["notes"][-1]


def test_an_interrupted_sweep_is_told(digitlab_process: Start, listener: Listener, home: Path) -> None:
    line = ["model=cnn", "epochs=400", "workers=1", "study=int", "seed=0,1"]
    process = digitlab_process("sweep", *line, f"--notify={listener.address()}")
    wait_for(lambda: is_training(home), "training")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    message = listener.message
    assert (message["status"], message["error"]) == ("interrupted", "stopped by SIGINT")
    assert message["counts"] == {"trials": 2, "finished": 0, "pruned": 0, "failed": 0, "left": 2}


@pytest.mark.parametrize("answer", [500, 404, 302, 307, None])
def test_a_server_that_fails_costs_one_line(
    answer: int | None, digitlab: Cli, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "SECONDS", 1.0)
    listener.answer = answer
    address = listener.address("me:p%40ss-word@", "/services/T0KEN")
    result = digitlab("sweep", *QUICK, "seed=0", f"--notify={address}")
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "was not told" in line]
    why = "no answer within 1 s" if answer is None else f"it answered {answer}"
    assert f"127.0.0.1:{listener.server_port} was not told of the end of the sweep: {why}" in line
    assert "rank" in result.out
    assert [path for path, _, _ in listener.posts] == ["/services/T0KEN"], "it follows nowhere"


def test_nobody_there_costs_one_line(digitlab: Cli) -> None:
    result = digitlab("sweep", *QUICK, "seed=0", f"--notify=http://127.0.0.1:{free_port()}/")
    assert result.code == 0, result.err
    assert "was not told of the end of the sweep: " in result.err
    assert "refused" in result.err


def test_a_server_that_trickles_takes_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps a connection's own limit from ever being reached."""
    monkeypatch.setattr(notice, "SECONDS", 1.0)
    server, ended = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def trickle() -> None:
        connection, _ = server.accept()
        with server, connection:
            while not ended.wait(0.2):
                connection.sendall(b"H")

    trickling = threading.Thread(target=trickle)
    trickling.start()
    monkeypatch.setattr(notice.Notice, "to_json", lambda _: {})
    said: list[str] = []
    began = time.monotonic()
    port = server.getsockname()[1]
    notice.send(f"http://127.0.0.1:{port}/", object.__new__(notice.Notice), said.append)
    assert 1.0 <= time.monotonic() - began < 5.0
    assert said == [f"127.0.0.1:{port} was not told of the end of the sweep: no answer within 1 s"]
    ended.set()
    trickling.join()


def test_what_is_secret_in_the_address_logs_in_and_is_kept_nowhere(
    digitlab: Cli, listener: Listener, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = listener.address("robot:s3cr3t%2Fpw@", "/services/T0KEN")
    line = ["sweep", *QUICK, "study=quiet", "seed=0", "--notify", address]
    monkeypatch.setattr("sys.argv", ["digitlab", *line])
    result = digitlab(*line)
    assert result.code == 0, result.err
    _, headers, message = listener.posts[0]
    assert headers["Authorization"] == f"Basic {base64.b64encode(b'robot:s3cr3t/pw').decode()}"
    assert message["command"] == "digitlab sweep epochs=1 executor=inprocess study=quiet seed=0"
    texts = [result.out.encode(), result.err.encode(), json.dumps(message).encode()]
    texts += [file.read_bytes() for file in home.rglob("*") if file.is_file()]
    assert not [text for text in texts if b"s3cr3t" in text or b"T0KEN" in text]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ftp://me:s3cr3t@host/T0KEN", "got 'ftp://host/...'"),
        ("file:///etc/passwd", "got 'file:///...'"),
        ("me:s3cr3t@host/T0KEN", "got 'host/...'"),
        ("http://", "got 'http://'"),
        ("https:///T0KEN", "got 'https:///...'"),
        ("http://me:s3cr3t@host name/", "got 'http://host name'"),
        ("http://me:s3c@r3t@host/", "got 'http://host'"),
        ("http://me:s3cr3t@host:port/T0KEN", "cannot be read"),
        ("http://me:s3cr3t/T0KEN@host", "cannot be read"),
        ("http://s3cr3t/T0KEN@host", "got 'http://host'"),
        ("hook", "got 'hook'"),
        ("", "got ''"),
    ],
)
def test_an_address_that_cannot_be_is_refused_before_anything_is_composed(
    address: str, shown: str, digitlab: Cli
) -> None:
    with pytest.raises(UsageError):
        notice.check_address(address)
    result = digitlab("sweep", *QUICK, "seed=0,1", f"--notify={address}")
    assert result.code == 2
    assert "--notify takes an address as http://HOST/... or https://HOST/..." in result.err
    assert shown in result.err
    assert not any(secret in result.err for secret in ("s3cr3t", "T0KEN", "r3t@"))
    assert not project.sweeps().exists()


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8000", "https://me:pw@host.example/a/b?c=d@e", "HTTPS://[::1]:9/x"]
)
def test_other_addresses_are_taken(address: str) -> None:
    notice.check_address(address)
