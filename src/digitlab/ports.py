"""Which port a local server takes."""

import socket

from digitlab.errors import UsageError

TRIED = 100


def choose_port(host: str, wanted: int | None, first: int) -> int:
    """The wanted one, or the first free one from `first` on.

    Raises:
        UsageError: it is taken, none is free, or there is no such host.
    """
    if wanted and not _is_free(host, wanted):
        raise UsageError(f"port {wanted} is taken: choose another with --port, or leave it to digitlab")
    if wanted:
        return wanted
    for port in range(first, first + TRIED):
        if _is_free(host, port):
            return port
    raise UsageError(f"no free port from {first} on: choose one with --port")


def address(host: str, port: int) -> str:
    """As a browser on this machine asks for it."""
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror:
            raise UsageError(f"--host {host}: no such address") from None
        except OSError:
            return False
    return True
