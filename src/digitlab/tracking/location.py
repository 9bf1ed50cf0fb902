"""Which tracking store is meant, and whether it answers. Does not import mlflow."""

import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from digitlab import project
from digitlab.checking import to_dict
from digitlab.config import Config
from digitlab.errors import UsageError

PROBE_SECONDS = 3.0
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def resolve_uri(chosen: str | None) -> str:
    """The knob `tracking.uri`, $MLFLOW_TRACKING_URI, or mlruns/mlflow.db of the project; absolute.

    Raises:
        UsageError: a folder or file: URI, which MLflow no longer writes.
    """
    uri = chosen or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not uri:
        return f"sqlite:///{project.mlruns() / 'mlflow.db'}"
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        raise UsageError(
            f"tracking.uri must be a database or a server (sqlite:///FILE, http://HOST:PORT, "
            f"postgresql://...), got {uri!r}: MLflow no longer writes folders"
        )
    file = sqlite_file(uri)
    return f"sqlite:///{file.resolve()}" if file else uri


def sqlite_file(uri: str) -> Path | None:
    """The file of a `sqlite:///` URI, None for any other."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)) if uri.startswith(prefix) else None


def artifact_location(uri: str) -> Path | None:
    """Where artifacts of a store without a server go; None: the server decides."""
    if uri.startswith(("http://", "https://", "databricks")):
        return None
    file = sqlite_file(uri)
    return (file.parent if file else project.mlruns()) / "artifacts"


def without_password(uri: str) -> str:
    """The URI as it may be recorded and shown."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def recorded_values(config: Config) -> dict[str, Any]:
    """The configuration as it may leave this machine: without a password in `tracking.uri`."""
    values = to_dict(config)
    if config.tracking.uri:
        values["tracking"]["uri"] = without_password(config.tracking.uri)
    return values


def unreachable(uri: str) -> str | None:
    """Why the store does not answer within 3 s; None if it does, or if that cannot be told."""
    parts = urlsplit(uri)
    if file := sqlite_file(uri):
        return None if os.access(_first_existing(file), os.W_OK) else f"{file} cannot be written"
    try:
        if parts.scheme in ("http", "https"):
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS).close()
        elif port := DATABASE_PORTS.get(parts.scheme.partition("+")[0]):
            address = (parts.hostname or "localhost", parts.port or port)
            socket.create_connection(address, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return None  # it answers; whether it lets us in shows when something is written
    except (OSError, ValueError) as error:
        return f"{without_password(uri)} does not answer ({getattr(error, 'reason', error)})"
    return None


def _first_existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())
