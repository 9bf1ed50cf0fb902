"""Addresses of tracking stores: which are accepted, and how their secrets stay where they are.

Everywhere in the program an address has `***` for its secrets, so that nothing that is written, printed
or handed to a process can hold one. The secrets of a typed address are kept in the environment of this
process and its children, never in a file. Code that opens a connection gets them from `with_secrets`.
"""

import json
import os
import re
from urllib.parse import unquote, urlsplit

from digitlab.errors import TrackingError

HIDDEN = "***"
KNOWN = "DIGITLAB_ADDRESSES"  # an environment variable: a JSON list of the addresses that hold secrets
STORE = "MLFLOW_TRACKING_URI"

SERVERS, DATABASES = ("http", "https"), ("postgresql", "mysql", "mssql", "sqlite")
ACCEPTED = "sqlite:///FILE, http://HOST:PORT, postgresql://USER@HOST/NAME, mysql://... or mssql://..."

# Greedy, to the last @ before a space: a password may hold what should have been percent-encoded.
_PASSWORD = re.compile(r"(?P<kept>[a-z][\w+.-]*://[^\s/:@]*:)(?P<secret>\S*)(?=@)", re.IGNORECASE)
_TOKEN = re.compile(r"(?P<kept>https?://)(?P<secret>[^\s/:@]+)(?=@)", re.IGNORECASE)
_PARAMETER = re.compile(
    r"(?P<kept>[?&;](?:[\w-]*(?:password|passwd|pwd|token|secret|credentials?|signature)"
    r"|(?:api|access|private|account|ssl)[\w-]*key|auth|sig|pass|odbc_connect)=)"
    r"(?!\*{3}['\"](?:[:,\s]|$))(?P<secret>[^\s&;#]+)",  # what is hidden and quoted stays as it is
    re.IGNORECASE,
)
_PATTERNS = (_PASSWORD, _TOKEN, _PARAMETER)


def redacted(text: str) -> str:
    """The text with `***` for what is secret in the addresses in it."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<kept>{HIDDEN}", text)
    return text


def redacted_for(address: str, text: str) -> str:
    """Also without the secrets of that address where the text quotes them alone."""
    for pattern in _PATTERNS:
        for match in pattern.finditer(address):
            for secret in {match["secret"], unquote(match["secret"])} - {HIDDEN}:
                text = text.replace(secret, HIDDEN)
    return redacted(text)


def refusal(address: str) -> str | None:
    """Why it can be no store's, in words that hold no secret; None if it can."""
    is_file = address.startswith("sqlite:///")  # whose path is taken as it is
    if not address.isprintable() or (" " in address and not is_file):
        return f"must be {ACCEPTED}, got one with a space: write it as %20"
    got = f"must be {ACCEPTED}, got {redacted(address)!r}"
    try:
        parts = urlsplit(address)
        scheme, host, _ = parts.scheme.partition("+")[0], parts.hostname, parts.port
    except ValueError:
        why = (
            "in user and password write / as %2F, ] as %5D" if "@" in address else "what host and port?"
        )
        return f"{got}: {why}"
    if scheme in ("", "file"):
        return f"{got}: MLflow no longer writes folders"
    if parts.netloc.count("@") > 1 or ("@" in parts.path and scheme != "sqlite"):
        return f"{got}: in user and password write @ as %40 and / as %2F"
    if scheme == "sqlite":
        return (
            None if parts.path.strip("/") and not parts.netloc else f"{got}: a file after three slashes"
        )
    if scheme in SERVERS and not host:
        return f"{got}: the host is missing"
    if scheme in SERVERS and (parts.query or parts.fragment):
        return f"{got}: a server takes nothing after ? (a token goes into MLFLOW_TRACKING_TOKEN)"
    if scheme in (*SERVERS, *DATABASES, "databricks") or scheme in _plugins():
        return None
    return f"{got}: nothing here knows {scheme}://"


def keep_secrets(address: str) -> str:
    """The address as the program knows it from here on; its secrets are kept for this process."""
    shown = redacted(address)
    if shown != address:
        os.environ[KNOWN] = json.dumps([*(known for known in _known() if known != address), address])
    return shown


def with_secrets(address: str) -> str:
    """For a connection: the address as it was typed, or as the environment has it.

    Raises:
        TrackingError: neither knows its secrets, which are kept in no file.
    """
    if HIDDEN not in address:
        return address
    for whole in [*reversed(_known()), os.environ.get(STORE, "")]:
        if redacted(whole) == address and whole != address:
            return whole
    raise TrackingError(
        f"the password of {address} is not kept: give the whole address with {STORE} or --tracking-uri"
    )


def _known() -> list[str]:
    return json.loads(os.environ.get(KNOWN, "[]"))  # type: ignore[no-any-return]


def _plugins() -> set[str]:
    """Kinds of store that installed packages add to MLflow."""
    import importlib.metadata  # 10 ms of every start, for an address that is rare

    return {entry.name for entry in importlib.metadata.entry_points(group="mlflow.tracking_store")}
