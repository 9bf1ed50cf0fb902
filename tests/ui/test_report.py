"""`digitlab report`: what it writes, and what somebody sees who opens it without a network.

DIGITLAB_SCREENSHOTS names a folder to keep pictures of it in.
"""

import json
import os
import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from tests.support.cli import Cli

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from tests.ui.browser import CHROMIUM, page  # noqa: E402

SCREENSHOTS = os.environ.get("DIGITLAB_SCREENSHOTS")  # read now: a test's environment has none
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
SWEEP = ("model=cnn,logistic_regression", "optimizer.learning_rate=0.001,0.01", "seed=range(2)")
SECTIONS = [
    *("Results", "Is it real?", "Against each knob", "All knobs at once", "Learning curves"),
    *("Confusion matrix: the best cnn", "Confusion matrix: the best logistic regression"),
    *("Worst mistakes", "Environment", "How to reproduce"),
]


def swept(digitlab: Cli, *overrides: str) -> str:
    result = digitlab("sweep", *overrides, "epochs=2", "study=s", "executor=inprocess")
    assert result.code == 0, result.err
    sweep_id: str = json.loads(digitlab("sweeps", "--json").out)[0]["id"]
    return sweep_id


@needs_browser
def test_the_page_shows_everything_without_a_network_on_screens_of_any_width(
    digitlab: Cli, home: Path
) -> None:
    sweep_id = swept(digitlab, *SWEEP)
    told = digitlab("report", sweep_id, "-o", str(home / "out"), "--question", "Which <model> is best?")
    assert told.code == 0, told.err
    found = json.loads(digitlab("compare", sweep_id, "--json").out)
    for width in (1280, 390):
        with page(width=width, height=900) as browser:
            requests: list[str] = []
            browser.on("request", lambda request, seen=requests: seen.append(request.url))
            browser.goto((home / "out" / "report.html").as_uri())
            assert set(browser.locator("h2").all_inner_texts()) == set(SECTIONS)
            assert browser.locator(".question").inner_text() == "Which <model> is best?"
            # Nothing sticks out of the page; what is wider scrolls within its own frame.
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
            assert browser.locator("img").count() == 7
            rows = browser.locator("table tr").all_inner_texts()
            assert len(rows) == 1 + len(found["rows"]) == 5
            for row, wanted in zip(rows[1:], found["rows"], strict=True):
                assert wanted["runs"][0][:8] in row
                assert f"{100 * wanted['metrics']['test/accuracy']['mean']:.2f} %" in row
            assert browser.locator("li").count() == 3
            assert all(url.startswith(("file:", "data:")) for url in requests)
            if SCREENSHOTS:
                browser.screenshot(path=Path(SCREENSHOTS) / f"report-{width}.png", full_page=True)


def test_a_sweeps_report_is_kept_with_the_sweep(digitlab: Cli, home: Path) -> None:
    sweep_id = swept(digitlab, "optimizer.learning_rate=0.001,0.01")
    told = digitlab("report", sweep_id, "-o", str(home / "out"))
    store = RunStore(resolve_uri(None))
    own_run = store.with_tag("digitlab.sweep", sweep_id)
    assert own_run is not None
    assert f"digitlab ui {own_run.short_id}" in told.out
    assert own_run.run_id in digitlab("show", sweep_id).out  # by the id that the sweep tells
    written = {f"report/{file.name}" for file in (home / "out").iterdir()}
    assert written <= {path for path, _ in store.artifacts(own_run)}
    assert {"report/report.html", "report/report.md"} <= written


def test_the_markdown_refers_to_pictures_that_are_there(
    digitlab: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "run_name='<script>alert(1)</script> *a* | b'"
    assert digitlab("train", "epochs=1", "study=a study", evil).code == 0
    digitlab("train", "epochs=1", "study=a study", "model=cnn")
    monkeypatch.chdir(home)
    told = digitlab("report", "a study")
    assert told.code == 0, told.err
    folder = home / "report-a-study"
    text = (folder / "report.md").read_text()
    pictures = re.findall(r"!\[[^]]*\]\(<(.+?)>\)", text)
    assert len(pictures) == 5
    for name in pictures:
        assert imread(folder / name).size
    assert "## How to reproduce" in text
    page_text = (folder / "report.html").read_text()
    assert "<script" not in page_text
    assert "What does model.name do?" in page_text


def test_without_validation_the_report_says_what_it_leaves_out(digitlab: Cli, home: Path) -> None:
    swept(digitlab, "optimizer.learning_rate=0.001,0.01", "data.validation_size=0")
    assert digitlab("report", "s", "-o", str(home / "out")).code == 0
    assert "There is no validation split" in (home / "out" / "report.md").read_text()


def test_mistakes_are_told(digitlab: Cli, home: Path) -> None:
    digitlab("train", "epochs=1", "study=s")
    (run,) = json.loads(digitlab("runs", "--json").out)
    (home / "file").touch()
    for arguments, message in (
        ((run["run_id"],), "is a single run, which `digitlab show"),
        (("nobody",), "is no run, sweep or study"),
        (("s", "-o", str(home / "file")), "that is a file; name a folder"),
        (("s", "--sort", "speed"), "a metric is one of"),
    ):
        result = digitlab("report", *arguments)
        assert (result.code, message in result.err) == (2, True), result.err
