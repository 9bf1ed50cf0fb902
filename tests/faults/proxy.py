"""A proxy before a tracking server, which fails the Nth request in a way of its own."""

import contextlib
import dataclasses
import enum
import http.client
import http.server
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator

AWAY_SECONDS = 1.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing discards what is under way


class Failure(enum.Enum):
    REFUSED = "refused"  # for a second nobody listens
    RESET = "reset"  # before the server has it
    LOST = "answer lost"  # the server has done it; the connection is reset
    CUT = "answer cut"  # the same in the middle of the answer
    HUNG = "hung"  # taken, and never answered
    ERROR = "HTTP 500"  # not done
    KILLED = "kill -9"  # the process `victim`, when the server has half of the request


@dataclasses.dataclass
class Plan:
    """The request that fails, from 1 (0: none), and whether all further ones do, too.

    only: how a request begins that counts, such as `PUT /api`.
    """

    failure: Failure = Failure.RESET
    number: int = 0
    lasts: bool = False
    only: str = ""


class FailingProxy:
    """Answers at `uri` for the server on a port of this machine, until `close`."""

    def __init__(self, port: int) -> None:
        self.plan = Plan()
        self.hit = ""  # the first request that failed
        self.victim: subprocess.Popen[str] | None = None
        self.rewrite: Callable[[str, bytes], bytes] = lambda request, content: content
        self.count = 0  # of requests
        self._upstream, self._lock = port, threading.Lock()
        self._healed = threading.Event()
        self._serve(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def failing(
        self, failure: Failure, number: int, *, lasts: bool = False, only: str = ""
    ) -> Iterator[None]:
        self.plan, self.hit, self.count = Plan(failure, number, lasts, only), "", 0
        self._healed.clear()
        try:
            yield
        finally:
            self.plan = Plan()
            self._healed.set()

    def close(self) -> None:
        self._healed.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, address: tuple[str, int]) -> None:
        self._server = http.server.ThreadingHTTPServer(
            address, type("Bound", (Handler,), {"proxy": self})
        )
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def failure_of(self, request: str) -> Failure | None:
        """How this request fails; None if it does not."""
        with self._lock:
            self.count += request.startswith(self.plan.only)
            number, plan = self.count, self.plan
        if not request.startswith(plan.only):
            return None
        is_hit = number == plan.number or (plan.lasts and 0 < plan.number < number)
        if not is_hit:
            return None
        self.hit = self.hit or request
        return plan.failure

    def go_away(self) -> None:
        """Nobody listens for a second, or until it is healed if it lasts."""
        address, lasts = self._server.server_address, self.plan.lasts
        self._server.shutdown()
        self._server.server_close()
        self._healed.wait(None if lasts else AWAY_SECONDS)
        self._serve((str(address[0]), int(address[1])))

    def wait_until_healed(self) -> None:
        self._healed.wait()

    def forward(self, handler: "Handler", body: bytes) -> tuple[int, str, bytes]:
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in ("host", "connection")}
        upstream = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)
        with contextlib.closing(upstream):
            upstream.request(handler.command, handler.path, body or None, headers)
            answer = upstream.getresponse()
            content = self.rewrite(handler.path, answer.read())
            return answer.status, str(answer.getheader("Content-Type", "")), content

    def kill_within(self, handler: "Handler", body: bytes) -> None:
        """The server gets half of the request, and then its end."""
        assert self.victim is not None
        with socket.create_connection(("127.0.0.1", self._upstream)) as upstream:
            head = [handler.requestline, *(f"{k}: {v}" for k, v in handler.headers.items()), "", ""]
            upstream.sendall("\r\n".join(head).encode() + body[: len(body) // 2])
            self.victim.kill()
            self.victim.wait()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FailingProxy

    def log_message(self, *_: object) -> None:
        pass

    def pass_on(self) -> None:
        failure = self.proxy.failure_of(f"{self.command} {self.path.partition('?')[0]}")
        if failure is Failure.HUNG:
            self.proxy.wait_until_healed()
        if failure in (Failure.HUNG, Failure.RESET, Failure.REFUSED):
            self.reset()
            if failure is Failure.REFUSED:
                self.proxy.go_away()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if failure is Failure.KILLED:
            self.proxy.kill_within(self, body)
            return
        if failure is Failure.ERROR:
            self.answer(500, "text/plain", b"Internal Server Error")
            return
        status, kind, content = self.proxy.forward(self, body)
        if failure is None:
            self.answer(status, kind, content)
            return
        if failure is Failure.CUT:
            self.answer(status, kind, content, cut_off=len(content) - len(content) // 2)
        self.reset()

    def answer(self, status: int, kind: str, content: bytes, cut_off: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content[: len(content) - cut_off])

    def reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            os.close(self.connection.detach())  # `close` would wait for its readers

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815
