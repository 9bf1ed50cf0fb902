"""What several commands share: arguments, options, the store they open, a local server's port."""

from collections.abc import Sequence

import click

from digitlab.cli.completion import complete_override
from digitlab.errors import UsageError

OVERRIDES = click.argument(
    "overrides", nargs=-1, metavar="[KNOB=VALUE]...", shell_complete=complete_override
)
STORE = click.option(
    "--tracking-uri", metavar="URI", help="Tracking store; default: MLFLOW_TRACKING_URI or mlruns/."
)
TRACKING = click.option(
    "--tracking-uri", metavar="URI", help="Tracking store; default: what conf/ and the environment say."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")

NUM_PORTS = 100  # tried


def store_uri(overrides: Sequence[str], tracking_uri: str | None) -> str:
    """The tracking store that `tracking=`, `tracking.uri=`, --tracking-uri or the environment mean."""
    from digitlab.config.composition import compose
    from digitlab.tracking.connection.location import resolve_uri

    wrong = [o for o in overrides if not o.startswith(("tracking=", "tracking.uri="))]
    if wrong:
        raise UsageError(f"only tracking=NAME and tracking.uri=URI are understood here, got {wrong[0]}")
    return resolve_uri(tracking_uri or compose(overrides).tracking.uri)


def choose_port(host: str, port: int | None, first: int) -> int:
    """`port`, or the first free one from `first` on.

    Raises:
        UsageError: it is taken, none is free, or there is no such host.
    """
    if port and not _is_free(host, port):
        raise UsageError(f"port {port} is taken: choose another with --port, or leave it to digitlab")
    if port:
        return port
    for candidate in range(first, first + NUM_PORTS):
        if _is_free(host, candidate):
            return candidate
    raise UsageError(f"no free port from {first} on: choose one with --port")


def address(host: str, port: int) -> str:
    """As a browser on this machine asks for it."""
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


def _is_free(host: str, port: int) -> bool:
    import socket  # 2 ms of every command's start

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror:
            raise UsageError(f"--host {host}: no such address") from None
        except OSError:
            return False
    return True
