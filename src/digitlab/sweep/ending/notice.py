"""One JSON message by HTTP when work on a sweep ends, in whatever way (`--notify URL`).

The address may hold secrets, also in its path: it is recorded nowhere, and only its host is shown.
"""

import base64
import dataclasses
import json
import math
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from digitlab.errors import UsageError
from digitlab.results.summary import Summary
from digitlab.results.trial_result import TrialResult
from digitlab.sweep.manifest import Manifest
from digitlab.text.addresses import SERVERS, redacted_for

SECONDS = 10.0  # that a message may take, whatever its server does

EndStatus = Literal["finished", "failed", "stopped", "interrupted"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is told. num_trials: of the whole sweep. seconds: of this command. error: what ended it."""

    manifest: Manifest
    summary: Summary
    status: EndStatus
    num_trials: int
    seconds: float
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        manifest, results = self.manifest, self.summary.results
        count = Counter(result.state for result in results)
        return {
            "study": manifest.study,
            "sweep": manifest.id,
            "name": manifest.name,
            "status": self.status,
            "counts": {
                "trials": self.num_trials,
                "finished": count["FINISHED"],
                "pruned": count["PRUNED"],
                "failed": count["FAILED"],
                "left": self.num_trials - len(results),
            },
            "metric": self.summary.metric,
            "best": _described(self.summary.best) if self.summary.best else None,
            "seconds": round(self.seconds, 3),
            "command": manifest.command,
            "notes": self.summary.notes,
            "error": self.error,
        }


def _described(best: TrialResult) -> dict[str, Any]:
    finite = {name: value if math.isfinite(value) else None for name, value in best.metrics.items()}
    return {
        "trial": best.number,
        "name": best.name,
        "run_id": best.run_id,
        "knobs": best.swept,
        "metrics": finite,  # JSON has no other numbers
    }


def check_address(address: str) -> None:
    """Raises UsageError, which quotes no user, password or path, for one that cannot be told."""
    allowed = "--notify takes an address as http://HOST/... or https://HOST/..."
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UsageError(
            f"{allowed}, got one that cannot be read: in user and password write @ as %40, / as %2F"
        ) from None
    is_plain = address.isprintable() and " " not in address
    is_plain = is_plain and parts.netloc.count("@") <= 1 and "@" not in parts.path
    if parts.scheme not in SERVERS or not host or not is_plain:
        raise UsageError(f"{allowed}, got {_without_secrets(address)!r}")


def _without_secrets(address: str) -> str:
    """`ftp://host/...` of whatever was typed."""
    scheme, _, rest = address.partition("://") if "://" in address else ("", "", address)
    host, _, path = rest.rpartition("@")[2].partition("/")
    return f"{scheme}{'://' if scheme else ''}{host}{'/...' if path else ''}"


def send(address: str, notice: Notice, say: Callable[[str], None]) -> None:
    """Tell it, or say in one line why it was not told; waits SECONDS at most and raises nothing."""
    body = json.dumps(notice.to_json(), allow_nan=False).encode()
    problems: list[str] = []
    thread = threading.Thread(target=_post_noting, args=(address, body, problems), daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        problems.append(f"no answer within {SECONDS:.0f} s")
    if problems:
        host = urlsplit(address).netloc.rpartition("@")[2]
        say(f"{host} was not told of the end of the sweep: {problems[0]}")


def _post_noting(address: str, body: bytes, problems: list[str]) -> None:
    try:
        _post(address, body)
    except Exception as error:  # whatever a server or a library of the connection comes up with
        text = str(getattr(error, "reason", "") or error or type(error).__name__)
        code = getattr(error, "code", None)
        shown = redacted_for(address, " ".join(text.split())[:200])
        problems.append(f"it answered {code} {shown}" if code else shown)


def _post(address: str, body: bytes) -> None:
    """Raises what urllib raises, also for a redirection, which would lose the message."""
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class NoRedirection(HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    parts = urlsplit(address)
    netloc = parts.netloc.rpartition("@")[2]
    headers = {"Content-Type": "application/json", "User-Agent": "digitlab"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    request = Request(parts._replace(netloc=netloc, fragment="").geturl(), body, headers, method="POST")
    # Longer than anybody waits for it: this limit is only of each read, and ends the thread some day.
    build_opener(NoRedirection).open(request, timeout=2 * SECONDS).close()
