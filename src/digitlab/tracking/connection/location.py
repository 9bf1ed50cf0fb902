"""Which tracking store is meant, and whether it answers. Does not import mlflow."""

import base64
import os
import socket
import sqlite3
import threading
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from digitlab.config import project
from digitlab.errors import UsageError
from digitlab.text import addresses

PROBE_SECONDS = 3.0
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def resolve_uri(chosen: str | None) -> str:
    """The knob `tracking.uri`, $MLFLOW_TRACKING_URI, or mlruns/mlflow.db of the project; absolute.

    Without its secrets, which `addresses.with_secrets` has for a connection.

    Raises:
        UsageError: no address of a store.
    """
    uri = chosen or os.environ.get(addresses.STORE) or ""
    if not uri:
        return f"sqlite:///{project.mlruns() / 'mlflow.db'}"
    if refusal := addresses.refusal(uri):
        raise UsageError(f"{'--tracking-uri' if chosen else addresses.STORE} {refusal}")
    file = sqlite_file(uri)
    return f"sqlite:///{file.resolve()}" if file else addresses.keep_secrets(uri)


def sqlite_file(uri: str) -> Path | None:
    """The file of a `sqlite:///` URI, None for any other."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)) if uri.startswith(prefix) else None


def file_path(address: str) -> Path | None:
    """The path that an address of artifacts is; None unless it is an absolute path or a file: URI."""
    parts = urlsplit(address)
    path = unquote(parts.path) if parts.scheme == "file" else address
    return Path(path) if parts.scheme in ("", "file") and path.startswith("/") else None


def shown_server(uri: str) -> str:
    """Of a tracking server: as a browser is to open it."""
    parts = urlsplit(uri.rstrip("/"))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def artifact_location(uri: str) -> Path | None:
    """Where artifacts of a store without a server go; None: the server decides."""
    if uri.startswith(("http://", "https://", "databricks")):
        return None
    file = sqlite_file(uri)
    return (file.parent if file else project.mlruns()) / "artifacts"


def unreachable(uri: str) -> str | None:
    """Why the store cannot be read, within 3 s; None if it can, or if that cannot be known."""
    if file := sqlite_file(uri):
        return _unreadable(file)
    answers: list[str | None] = []
    # A thread, since no timeout of a socket ends a name that is looked up, or an answer that drips in.
    probe = threading.Thread(target=lambda: answers.append(_probe(uri)), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    reason = answers[0] if answers else f"nothing within {PROBE_SECONDS:g} s"
    return f"{uri} does not answer ({reason})" if reason else None


def _probe(uri: str) -> str | None:
    """What is wrong with the store's answer; None if nothing is, or if that cannot be known."""
    whole = uri
    try:
        whole = addresses.with_secrets(uri)
        parts = urlsplit(whole)
        if parts.scheme in addresses.SERVERS:
            urllib.request.urlopen(_health_request(whole), timeout=PROBE_SECONDS).close()
        elif parts.hostname and (port := DATABASE_PORTS.get(parts.scheme.partition("+")[0])):
            address = (parts.hostname, parts.port or port)  # without a host the driver knows where
            socket.create_connection(address, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return None  # it answers; whether it lets us in shows when something is written
    except Exception as error:  # whatever an answer that is no HTTP, or hostile, brings about
        reason = str(getattr(error, "reason", error)).strip() or type(error).__name__
        return addresses.redacted_for(whole, reason.splitlines()[0][:200])
    return None


def _health_request(address: str) -> urllib.request.Request:
    """With user and password as a header: urllib knows nothing of them in an address."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    place = parts._replace(netloc=host, path=f"{parts.path.rstrip('/')}/health")
    request = urllib.request.Request(urlunsplit(place))
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        encoded = base64.b64encode(login.encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    return request


def undeliverable(uri: str) -> str | None:
    """Why nothing can be delivered to the store now; a file that is not there yet will be made."""
    return unusable(uri) if sqlite_file(uri) else unreachable(uri)


def unusable(uri: str) -> str | None:
    """Why a store in a file will never take a run; None of any other store, even if it is away."""
    file = sqlite_file(uri)
    if file is None:
        return None
    if is_made(file) and (reason := _unreadable(file)):
        return reason
    closed = read_only(file) or read_only(file.parent)  # SQLite writes a journal beside its file
    if closed is None:
        return None
    where = "" if closed == file else f": {closed} cannot be written"
    return f"the tracking store {file} can only be read{where}"


def read_only(path: Path) -> Path | None:
    """What is read-only of a file or folder: itself, or its nearest parent that exists; else None."""
    nearest = next(p for p in (path, *path.parents) if _exists(p))
    return None if os.access(nearest, os.W_OK) else nearest


def is_made(file: Path) -> bool:
    """An empty file is what a program leaves that was stopped before it made one."""
    return _exists(file) and not (file.is_file() and file.stat().st_size == 0)


def _unreadable(file: Path) -> str | None:
    if not is_made(file):
        return f"there is no tracking store {file}: the first run recorded there makes it"
    try:
        # Never made by this; but what a killed writer has left half done is taken back.
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=0)) as store:
            store.execute("SELECT 1 FROM experiments LIMIT 1")
    except sqlite3.DatabaseError as error:
        if "locked" not in str(error):
            return f"{file} is no tracking store that can be read ({error})"
    return None


def _exists(path: Path) -> bool:
    """Path.exists() raises in a folder that may not be searched."""
    return os.access(path, os.F_OK)
