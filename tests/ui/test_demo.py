"""`digitlab demo` in a browser: a stroke is drawn, and read; and what the server refuses.

DIGITLAB_SCREENSHOTS names a folder to keep pictures of it in.
"""

import http.client
import io
import json
import math
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from digitlab.config.composition import compose
from digitlab.errors import UsageError
from digitlab.inference import demo
from digitlab.inference.trained_model import TrainedModel
from digitlab.models.build import build_model
from digitlab.models.saved import Classifier
from digitlab.models.signature import of_earlier
from tests.support.cli import Cli

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect  # noqa: E402

from tests.ui.browser import CHROMIUM, PATIENCE, page  # noqa: E402

SCREENSHOTS = os.environ.get("DIGITLAB_SCREENSHOTS")  # read now: a test's environment has none
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@contextmanager
def running(*models: TrainedModel) -> Iterator[int]:
    """The server in a thread of this process; gives its port."""
    with demo.make_server(models, host="127.0.0.1", port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:  # or a failed test would wait for the thread for ever
            server.shutdown()
            thread.join()


def untrained(name: str) -> TrainedModel:
    config = compose(["model=logistic_regression"])
    signature = of_earlier(config.data.name)
    model = build_model(config.model, 0, image_shape=signature.image_shape, num_classes=10)
    classifier = Classifier(model, config, signature)
    return TrainedModel(name=name, run_id="", classifier=classifier)


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body or None, sent)
    answer = connection.getresponse()
    content = (
        json.loads(answer.read()) if answer.headers["Content-Type"] == "application/json" else None
    )
    connection.close()
    return answer.status, content


def draw(browser: Page, *points: tuple[float, float]) -> None:
    """One stroke through points in shares of the pad's side."""
    box = browser.locator("#pad").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    browser.mouse.move(*places[0])
    browser.mouse.down()
    for place in places[1:]:
        browser.mouse.move(*place, steps=8)
    browser.mouse.up()


@needs_browser
def test_a_stroke_is_read_by_both_models_on_screens_of_any_width(
    digitlab: Cli, digitlab_process: Callable[..., "subprocess.Popen[str]"]
) -> None:
    for model in ("cnn", "logistic_regression"):
        digitlab("train", f"model={model}", "epochs=15", "study=s")
    ids = [run["run_id"] for run in json.loads(digitlab("runs", "--json").out)]
    process = digitlab_process("demo", *ids)
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    for width, height in ((390, 900), (1400, 760)):
        draw_a_zero(address, width, height)
    process.send_signal(2)
    assert process.wait(timeout=20) == 0


def draw_a_zero(address: str, width: int, height: int) -> None:
    """Both models read it, nothing sticks out, and only the server is asked for anything."""
    with page(width=width, height=height) as browser:
        expect.set_options(timeout=PATIENCE)
        requests: list[str] = []
        browser.on("request", lambda request: requests.append(request.url))
        browser.goto(address)
        labels = browser.locator(".label")
        expect(labels).to_have_text(["–", "–"])
        angles = [math.tau * step / 24 for step in range(25)]
        draw(browser, *((0.5 + 0.22 * math.sin(a), 0.5 - 0.35 * math.cos(a)) for a in angles))
        expect(labels).to_have_text(["0", "0"])
        expect(browser.locator("tr.best th")).to_have_text(["0", "0"])
        shares = browser.locator("td.share").all_inner_texts()
        for shown in (shares[:10], shares[10:]):
            assert sum(float(share.split()[0]) for share in shown) == pytest.approx(100, abs=0.6)
        expect(browser.get_by_role("status").last).to_have_text(re.compile(r"reads 0; .* reads 0$"))
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        if SCREENSHOTS:
            browser.screenshot(path=Path(SCREENSHOTS) / f"demo-{width}.png", full_page=True)
        browser.get_by_role("button", name="Clear").click()
        expect(labels).to_have_text(["–", "–"])
        assert all(url.startswith(address) for url in requests)


def test_requests_that_are_none_of_the_page_are_refused() -> None:
    with running(untrained("one")) as port:
        assert ask(port, "GET", "/models")[1] == [
            {
                "name": "one",
                "classes": [str(digit) for digit in range(10)],
                "size": [28, 28],
                "drawn": True,
            }
        ]
        png = {"Content_Type": "image/png"}
        for wanted, got in (
            (403, ask(port, "GET", "/", Host="digits.example:80")),
            (403, ask(port, "POST", "/predict", b"x", Host="digits.example", **png)),
            (404, ask(port, "GET", "/../demo.py")),
            (404, ask(port, "POST", "/models", b"x", **png)),
            (415, ask(port, "POST", "/predict", b"x", Content_Type="text/plain")),
            (411, ask(port, "POST", "/predict", **png, Transfer_Encoding="chunked")),
            (411, ask(port, "POST", "/predict", **png, Content_Length="²")),
            (411, ask(port, "POST", "/predict", **png, Content_Length="9" * 5000)),
            (405, ask(port, "PUT", "/", b"x", **png)),
            (414, ask(port, "GET", "/" + "a" * 70_000)),
            (413, ask(port, "POST", "/predict", bytes(demo.MAX_BODY + 1), **png)),
            (400, ask(port, "POST", "/predict", b"no picture", **png)),
        ):
            status, content = got
            assert status == wanted
            assert isinstance(content, dict)
            assert content["error"]
        assert ask(port, "GET", "/", Host="localhost:1")[0] == 200


def test_a_browser_that_goes_away_is_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with running(untrained("one")) as port:
        for line in (
            b"GET /models HTTP/1.1\r\n",
            b"POST /predict HTTP/1.1\r\nContent-Length: 9\r\n",
            b"",
        ):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(line)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            client.close()
        for line in (b"no HTTP at all\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(line)
                assert client.makefile("rb").readline().startswith(b"HTTP/1.0 400 ")
    assert "Traceback" not in capfd.readouterr().err


def silent(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def test_slow_clients_are_let_go_however_they_go_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte in time, and no end."""
    monkeypatch.setattr(demo, "CLIENT_SECONDS", 0.5)
    with running(untrained("one")) as port, silent(port) as client:
        client.settimeout(0.05)
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline, "it is held for ever"
            try:
                client.sendall(b"G")
                if client.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert ask(port, "GET", "/models")[0] == 200


def test_more_clients_than_there_are_places_for_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MAX_CLIENTS", 3)
    with running(untrained("one")) as port:
        held = [silent(port) for _ in range(3)]
        with silent(port) as client:
            assert client.recv(100).startswith(b"HTTP/1.0 429 Too Many Requests\r\n")
        for client in held:
            client.close()


def test_more_pictures_than_are_read_at_once_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    Image.new("L", (40, 40), 255).save(content, "PNG")
    asked, going_on = threading.Event(), threading.Event()

    def slow(picture: bytes, colour: str) -> object:
        asked.set()
        assert going_on.wait(60)
        raise UsageError("read at last")

    monkeypatch.setattr(demo, "decode_picture", slow)
    monkeypatch.setattr(demo._Handler, "places", threading.BoundedSemaphore(1))
    with running(untrained("one")) as port:
        picture = {"body": content.getvalue(), "Content_Type": "image/png"}
        first = threading.Thread(target=ask, args=(port, "POST", "/predict"), kwargs=picture)
        first.start()
        assert asked.wait(60)
        told = ask(port, "POST", "/predict", **picture)  # type: ignore[arg-type]
        going_on.set()
        first.join()
        assert told == (429, {"error": "too many pictures at once: try again"})
        assert ask(port, "POST", "/predict", **picture)[0] == 400  # type: ignore[arg-type]


def test_more_than_two_models_are_refused(digitlab: Cli) -> None:
    digitlab("train", "epochs=1", "study=s")
    (run,) = json.loads(digitlab("runs", "--json").out)
    result = digitlab("demo", *[run["run_id"]] * 3)
    assert result.code == 2
    assert "up to 2 models side by side, got 3" in result.err
