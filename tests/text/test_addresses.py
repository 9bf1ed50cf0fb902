"""Addresses of stores: bad ones are refused in one line, and no secret of one is left anywhere."""

import base64
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from digitlab.cli.ui import _server
from digitlab.config import project
from digitlab.errors import TrackingError
from digitlab.runs import provenance
from digitlab.text import addresses
from digitlab.tracking.connection.location import resolve_uri, shown_server, unreachable
from digitlab.tracking.run_folder import all_records
from digitlab.tracking.store import RunStore
from tests.support.cli import Cli, Result

SECRET = "hunter2secret"
AWAY = "127.0.0.1:9"  # where nothing listens
KINDS = {
    "password": f"postgresql://me:{SECRET}@{AWAY}/runs",
    "token as user": f"http://{SECRET}@{AWAY}",
    "encoded password": f"http://me:%2F{SECRET}%5D@{AWAY}",
    "parameter": f"postgresql://{AWAY}/runs?user=me&password={SECRET}&sslmode=require",
    "token": f"mysql+pymysql://{AWAY}/runs?access_token={SECRET}",
}
BAD = {
    "port": f"http://me:{SECRET}@127.0.0.1:abc",
    "bracket": "http://[::1",
    "bracket in password": f"postgresql://u:{SECRET}]x@h/db",
    "slash in password": f"http://u:{SECRET}/x@h",
    "at in password": f"postgresql://u:{SECRET}@x@h/db",
    "space": f"postgresql://u:{SECRET} x@h/db",
    "line": f"http://u:{SECRET}\n@h",
    "no host": "http://",
    "token of a server": f"http://127.0.0.1:9/?token={SECRET}",
    "folder": "./mlruns",
    "file": "file:///tmp/mlruns",
    "sqlite in memory": "sqlite:///",
    "sqlite with two slashes": "sqlite://x.db",
    "unknown": "foo://bar",
    "long": f"postgresql://u:{SECRET}@h/{'d' * 1000}",
}


@pytest.fixture
def typed(digitlab: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line, which also is what this process was started with."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["digitlab", *arguments])
        return digitlab(*arguments)

    return run


def quoted(text: str) -> str:
    """For Hydra's grammar."""
    return "'" + text.replace("'", "\\'") + "'"


def hits(folder: Path) -> list[str]:
    """The files in which the secret stands."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(file) for file in files if SECRET.encode() in file.read_bytes()]


@pytest.mark.parametrize("address", KINDS.values(), ids=KINDS)
def test_an_address_keeps_all_but_its_secret(address: str) -> None:
    assert addresses.refusal(address) is None
    shown = addresses.keep_secrets(address)
    assert SECRET not in shown
    assert AWAY in shown
    assert addresses.redacted(f"look: {shown} there") == f"look: {shown} there"
    assert addresses.with_secrets(shown) == address
    secret = f"/{SECRET}]" if "%5D" in address else SECRET  # as a driver's message quotes it
    assert addresses.redacted_for(address, f"no {secret!r} here") == "no '***' here"


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////a:b@c/runs.db",
        "postgresql://me@host/runs?sslmode=require",
        "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=digitlab",
        "models:/digits@champion of http://127.0.0.1:5000",
    ],
)
def test_what_is_no_secret_is_left(address: str) -> None:
    assert addresses.redacted(address) == address


@pytest.mark.parametrize("address", BAD.values(), ids=BAD)
@pytest.mark.parametrize("way", ["knob", "option", "environment"])
def test_a_bad_address_is_refused_in_one_line(
    way: str, address: str, typed: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "knob":
        result = typed("train", f"tracking.uri={quoted(address)}")
    elif way == "option":
        result = typed("runs", "--tracking-uri", address)
    else:
        monkeypatch.setenv(addresses.STORE, address)
        result = typed("runs")
    if (way, address) in (("option", BAD["long"]), ("environment", BAD["long"])):
        assert result.code == 4  # long, and nobody's: there is no such host
    else:
        assert result.code == 2
    assert len(result.err.splitlines()) == 1, result.err
    assert SECRET not in result.out + result.err
    assert not project.records().exists()


@pytest.mark.parametrize("address", KINDS.values(), ids=KINDS)
def test_a_typed_secret_is_left_nowhere_while_the_store_is_away(
    address: str, typed: Cli, home: Path
) -> None:
    knob = f"tracking.uri={quoted(address)}"
    results = [
        typed("config", knob),
        typed("config", "--sources", knob),
        typed("train", "epochs=1", "record.plots=never", knob),
        typed("sweep", "epochs=1", "seed=5,6", "executor=inprocess", knob),
    ]
    assert [result.code for result in results] == [0] * 4, results[-1].err
    own, *records = sorted(all_records(project.records()), key=lambda r: "sweep" not in r.folder.name)
    assert len(records) == 3
    assert own.run.tracking_uri == addresses.redacted(address)
    results += [
        typed("runs", "--tracking-uri", address),
        typed("show", records[0].run.record_id, "--tracking-uri", address),
        typed("export", records[0].run.record_id, str(home / "run.zip"), "--tracking-uri", address),
        typed("sweeps"),
        typed("sync"),
    ]
    assert [result.code for result in results[4:]] == [0, 0, 0, 0, 4]
    assert SECRET not in "".join(result.out + result.err for result in results)
    assert "***" in "".join(result.out + result.err for result in results)
    assert hits(home) == []


def test_a_typed_secret_is_left_nowhere_by_what_reaches_the_store(
    server: str,
    typed: Cli,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its files, the server's, and all that is printed."""
    address = server.replace("//", f"//me:{SECRET}@")
    knob, option = f"tracking.uri={quoted(address)}", ("--tracking-uri", address)
    results = [
        typed("train", "epochs=1", "study=hush", knob),
        typed("sweep", "seed=0,1", "epochs=1", "study=hushed", "sweep.name=both", knob),
    ]
    assert [result.code for result in results] == [0, 0], results[-1].err
    assert list(all_records(project.records())) == [], "all delivered, by workers too"
    store = RunStore(resolve_uri(address))
    (run,) = store.runs("hush")
    monkeypatch.chdir(tmp_path)
    results += [
        typed("show", run.run_id, *option),
        typed("export", run.run_id, "run.zip", *option),
        typed("report", "hushed", "--output", str(tmp_path / "report"), *option),
        typed("ui", *option),
        typed("reproduce", run.run_id, *option),
    ]
    assert [result.code for result in results[2:]] == [0] * 5, results
    assert SECRET not in "".join(result.out + result.err for result in results)
    assert shown_server(address) + "/#/" in results[-2].out
    for name, _ in store.artifacts(run):
        (tmp_path / name).write_bytes(store.content(run, name))
    assert SECRET not in str([store.runs(study) for study in ("hush", "hushed")])
    assert hits(tmp_path) == []


def test_the_ui_has_the_secret_in_its_environment_only(home: Path) -> None:
    address = addresses.keep_secrets(KINDS["password"])
    with _server(address, "127.0.0.1", 5999) as process:
        place = Path("/proc") / str(process.pid)
        while b"ui_server" not in place.joinpath("cmdline").read_bytes():
            pass  # it is still this process' copy
        assert SECRET.encode() not in place.joinpath("cmdline").read_bytes()
        assert KINDS["password"].encode() in place.joinpath("environ").read_bytes()


def test_a_secret_is_asked_for_where_nobody_knows_it(
    digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record knows where it belongs, not the password: the environment does."""
    address = KINDS["password"]
    assert digitlab("train", "epochs=1", f"tracking.uri={address}").code == 0
    monkeypatch.delenv(addresses.KNOWN)  # another day
    result = digitlab("sync")
    assert result.code == 4
    assert "the password of postgresql://me:***@" in result.err
    assert addresses.STORE in result.err
    with pytest.raises(TrackingError, match="is not kept"):
        addresses.with_secrets(addresses.redacted(address))
    monkeypatch.setenv(addresses.STORE, address)
    assert addresses.with_secrets(addresses.redacted(address)) == address
    assert "does not answer" in digitlab("sync").err


def test_a_password_in_conf_is_no_part_of_the_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        settings = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", tmp_path, *settings, *arguments], check=True, capture_output=True)

    conf = tmp_path / "conf" / "tracking"
    conf.mkdir(parents=True)
    git("init")
    git("commit", "--allow-empty", "-m", "empty")
    (conf / "local.yaml").write_text(f"uri: {KINDS['password']}\n")
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    provenance.code.cache_clear()
    provenance.patch.cache_clear()
    try:
        patch = provenance.patch()
    finally:
        provenance.code.cache_clear()
        provenance.patch.cache_clear()
    assert "+uri: postgresql://me:***@" in patch
    assert SECRET not in patch


class _Guarded(http.server.BaseHTTPRequestHandler):
    """Lets in who has the password, as a proxy before a server does."""

    def do_GET(self) -> None:
        login = base64.b64encode(f"user:{SECRET}/".encode()).decode()
        self.server.seen.append(self.headers.get("Authorization") == f"Basic {login}")  # type: ignore[attr-defined]
        self.send_response(200 if self.server.seen[-1] else 401)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def guarded() -> Iterator[http.server.HTTPServer]:
    listening = http.server.HTTPServer(("127.0.0.1", 0), _Guarded)
    listening.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield listening
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_a_server_that_asks_for_a_password_gets_it(guarded: http.server.HTTPServer) -> None:
    port = guarded.server_address[1]
    for login, is_let_in in ((f"user:{SECRET}%2F@", True), ("user:wrong@", False), ("", False)):
        assert unreachable(addresses.keep_secrets(f"http://{login}127.0.0.1:{port}")) is None
        assert guarded.seen.pop() is is_let_in  # type: ignore[attr-defined]


def test_what_an_old_record_holds_is_shown_without_its_secret(typed: Cli, home: Path) -> None:
    address = KINDS["password"]
    assert typed("train", "epochs=1", f"tracking.uri={address}").code == 0
    (record,) = all_records(project.records())
    file = record.folder / "run.json"
    file.write_text(file.read_text().replace(addresses.redacted(address), address))
    assert os.environ.pop(addresses.KNOWN)
    result = typed("sync")
    assert "does not answer" in result.err
    assert SECRET not in result.out + result.err


def test_a_sentence_about_a_hidden_address_is_not_changed_by_hiding_again() -> None:
    said = addresses.refusal(f"http://127.0.0.1:9/?token={SECRET}")
    assert said is not None
    assert "?token=***': a server takes nothing" in said
    assert addresses.redacted(said) == said
