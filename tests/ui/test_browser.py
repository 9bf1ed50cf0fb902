"""What somebody sees who follows the link that `digitlab ui` prints."""

import json
import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from digitlab.tracking.location import resolve_uri
from tests.conftest import Cli

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import expect  # noqa: E402

from tests.ui.browser import CHROMIUM, PATIENCE, close_assistant, page, user_interface  # noqa: E402

SCREENSHOTS = os.environ.get("DIGITLAB_SCREENSHOTS")  # read now: a test's environment has none

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def test_the_link_opens_a_table_of_training_runs_and_charts(digitlab: Cli) -> None:
    digitlab("train", "epochs=2", "study=seen", "run_name=first of two")
    digitlab("train", "epochs=2", "study=seen", "run_name=second of two", "model=cnn")
    with user_interface("--study", "seen") as (runs_link, charts_link), page() as browser:
        browser.goto(runs_link)
        browser.get_by_text("first of two").first.wait_for(timeout=60_000)
        browser.get_by_text("second of two").first.wait_for()
        browser.get_by_text("2 matching runs").wait_for()
        for column in ("test/accuracy", "chosen/validation"):
            assert browser.get_by_text(column).first.is_visible()
        browser.goto(charts_link)
        browser.get_by_text("Learning curves").first.wait_for(timeout=60_000)
        assert browser.get_by_text("Results").first.is_visible()


def test_a_run_opens_with_its_description_and_its_pictures(digitlab: Cli) -> None:
    digitlab("train", "epochs=1", "study=seen", "run_name=the one")
    (run,) = json.loads(digitlab("runs", "--json").out)
    expect.set_options(timeout=PATIENCE)
    with user_interface(run["run_id"][:8], num_links=1) as (link,), page(height=900) as browser:
        browser.goto(link)
        close_assistant(browser)
        expect(browser.get_by_text("the one").first).to_be_visible()
        expect(browser.get_by_text(f"digitlab reproduce {run['run_id'][:8]}")).to_be_visible()
        for metric in ("test/accuracy", "validation/accuracy", "train/accuracy"):
            expect(browser.get_by_text(metric, exact=True).first).to_be_visible()
        browser.get_by_role("tab", name="Artifacts").click()
        browser.get_by_text("confusion_matrix.png").first.click()
        picture = browser.locator(".image-container img, .ant-image img, img[src^='blob:']").first
        expect(picture).to_be_visible()
        width = picture.evaluate("image => image.complete && image.naturalWidth")
        assert width > 500
        if SCREENSHOTS:
            browser.screenshot(path=Path(SCREENSHOTS) / "run.png")


def test_the_study_says_what_it_is(digitlab: Cli) -> None:
    digitlab("train", "epochs=1", "study=two words")
    experiment = MlflowClient(resolve_uri(None)).get_experiment_by_name("two words")
    assert "digitlab compare 'two words'" in experiment.tags["mlflow.note.content"]
