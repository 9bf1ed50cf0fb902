"""`digitlab demo`: a page on this machine. One draws a digit or chooses a picture; models read it.

The standard library's server and one file: nothing is fetched from anywhere else.
"""

import importlib.resources
import ipaddress
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from digitlab.data.image_files import decode_picture
from digitlab.errors import Interrupted, UsageError
from digitlab.inference.predict import doubts
from digitlab.inference.preparation import colour_of, prepared
from digitlab.inference.trained_model import TrainedModel
from digitlab.runs.interrupts import Interrupts
from digitlab.text.terminal import echo

FIRST_PORT = 5080
MAX_BODY = 4_000_000  # bytes: a drawing has 10 to 20 thousand, a photo more
READ_SECONDS = 10.0  # a client that says nothing is let go
CLIENT_SECONDS = 20.0  # and one that has not asked and read all by then, however it goes about it
MAX_CLIENTS = 64
MAX_PICTURES = 4  # that are read or wait for it
MAX_MODELS = 2
TYPES = ("image/png", "image/jpeg", "image/bmp", "image/gif")  # which no page elsewhere may send
# What http.server itself refuses with a status of a server's fault, though it is the request's.
STATUS = {
    HTTPStatus.NOT_IMPLEMENTED: HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: HTTPStatus.BAD_REQUEST,
}
BUSY = b"HTTP/1.0 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
# Nothing from elsewhere, and no page elsewhere may show this one as a part of itself.
POLICY = "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


def serve(models: Sequence[TrainedModel], *, host: str, port: int, address: str) -> None:
    """Until Ctrl-C. address: of the page, as a browser on this machine asks for it."""
    with make_server(models, host=host, port=port) as server, Interrupts(), suppress(Interrupted):
        echo(f"{'draw' if all(map(_can_be_drawn, models)) else 'choose a picture'} here: {address}")
        echo("Ctrl-C ends it", err=True)
        server.serve_forever(poll_interval=0.2)


def make_server(models: Sequence[TrainedModel], *, host: str, port: int) -> ThreadingHTTPServer:
    """Raises UsageError for more models than fit side by side."""
    if len(models) > MAX_MODELS:
        raise UsageError(f"the demo shows up to {MAX_MODELS} models side by side, got {len(models)}")
    return _Server(host, port, models)


class _Server(ThreadingHTTPServer):
    request_queue_size = MAX_CLIENTS  # that wait to be accepted or refused
    daemon_threads = False  # joined at the end, when all clients are let go

    def __init__(self, host: str, port: int, models: Sequence[TrainedModel]) -> None:
        self.models, self.host = models, host
        self.accepted: dict[socket.socket, float] = {}  # and when, by the monotonic clock
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self.accepted) >= MAX_CLIENTS:
            with suppress(OSError):
                request.settimeout(0)  # nobody else waits for this client
                request.sendall(BUSY)
            self.shutdown_request(request)
            return
        self.accepted[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.accepted.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called several times a second."""
        self._let_go(CLIENT_SECONDS)

    def server_close(self) -> None:
        self._let_go(0)
        super().server_close()

    def _let_go(self, seconds: float) -> None:
        """Disconnect clients that came so many seconds ago: the thread of each ends."""
        for request, since in list(self.accepted.items()):
            if time.monotonic() - since >= seconds:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that was closed while it was answered is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """GET / and /models, POST /predict with a picture; every answer but the page is JSON."""

    server: "_Server"
    timeout = READ_SECONDS
    page = importlib.resources.files(__package__).joinpath("demo.html").read_bytes()
    one_at_a_time = threading.Lock()  # a picture may take 200 MB while it is decoded
    places = threading.BoundedSemaphore(MAX_PICTURES)

    def do_GET(self) -> None:
        if not self._is_asked_as_this_host():
            return
        if self.path == "/":
            self._answer(HTTPStatus.OK, self.page, "text/html; charset=utf-8")
        elif self.path == "/models":
            self._answer_json(
                HTTPStatus.OK,
                [
                    {
                        "name": model.name,
                        "classes": model.signature.class_names,
                        "size": model.signature.image_shape[:0:-1],
                        "drawn": _can_be_drawn(model),
                    }
                    for model in self.server.models
                ],
            )
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is / and /models, and POST /predict")

    def do_POST(self) -> None:
        if not self._is_asked_as_this_host():
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/predict":
            self._refuse(HTTPStatus.NOT_FOUND, "there is POST /predict")
        elif self.headers.get_content_type() not in TYPES:
            self._refuse(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the picture must be sent as {', '.join(TYPES)}"
            )
        elif not re.fullmatch("[0-9]{1,12}", length):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "Content-Length must be a number of bytes")
        elif int(length) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY:,} bytes are read")
        else:
            content = self.rfile.read(int(length))
            if not self.places.acquire(blocking=False):
                error = "too many pictures at once: try again"
                self._answer_json(HTTPStatus.TOO_MANY_REQUESTS, {"error": error})
                return
            try:
                self._predict(content)
            finally:
                self.places.release()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server refuses before it asks us: methods, and lines that are no HTTP."""
        status = HTTPStatus(code)
        self.request_version = "HTTP/1.0"  # it may not have been read; the status goes to all
        self._refuse(STATUS.get(status, status), message or status.phrase)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Says nothing."""

    def _predict(self, content: bytes) -> None:
        try:
            with self.one_at_a_time:
                readings = [_reading(model, content) for model in self.server.models]
        except UsageError as error:
            self._answer_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        else:
            self._answer_json(HTTPStatus.OK, {"readings": readings})

    def _is_asked_as_this_host(self) -> bool:
        """Refuses names of other machines: one that resolves to this address would let any page ask."""
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        name = name.strip("[]")
        if name in ("localhost", self.server.host):
            return True
        with suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "ask for it by this machine's address")
        return False

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Answer, and read what is still being sent: closed earlier, a connection loses its answer."""
        self.close_connection = True
        self._answer_json(status, {"error": reason})
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while self.connection.recv(1 << 16):
                pass

    def _answer_json(self, status: HTTPStatus, content: object) -> None:
        self._answer(status, json.dumps(content).encode(), "application/json")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _can_be_drawn(model: TrainedModel) -> bool:
    """What is drawn is grey and square."""
    channels, height, width = model.signature.image_shape
    return channels == 1 and height == width


def _reading(model: TrainedModel, content: bytes) -> dict[str, object]:
    """`label` is `prediction` under the name that it had first. seen: grey, or the colours in turn."""
    classifier = model.classifier
    found = prepared(decode_picture(content, colour_of(classifier)), classifier)
    shares = classifier.predict(found.image[None])[0]
    names = model.signature.class_names
    prediction = names[int(shares.argmax())]
    return {
        "prediction": prediction,
        "label": prediction,
        "probabilities": {name: float(p) for name, p in zip(names, shares, strict=True)},
        "seen": found.image.ravel().tolist(),
        "doubts": doubts(found, shares),
    }
