"""What somebody sees who follows the link that `digitlab ui` prints."""

import json
import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from digitlab.tracking.connection.location import resolve_uri
from tests.support.cli import Cli

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import expect  # noqa: E402

from tests.ui.browser import CHROMIUM, PATIENCE, page, user_interface  # noqa: E402

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
    digitlab("train", "epochs=1", "study=seen", "run_name=the one", "record.plots=auto")
    (run,) = json.loads(digitlab("runs", "--json").out)
    expect.set_options(timeout=PATIENCE)
    with user_interface(run["run_id"][:8], num_links=1) as (link,), page(height=900) as browser:
        browser.goto(link)
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


def test_from_its_start_page_the_ui_shows_training_runs_and_tells_what_each_is(digitlab: Cli) -> None:
    assert digitlab("train", "epochs=1", "study=seen", "run_name=the one").code == 0
    (run,) = json.loads(digitlab("runs", "--json").out)
    assert digitlab("reproduce", run["run_id"]).code == 0
    expect.set_options(timeout=PATIENCE)
    with user_interface() as (link, _), page(height=800) as browser:
        browser.goto(link.partition("#")[0])
        browser.get_by_role("link", name="Experiments", exact=True).click()
        browser.get_by_role("link", name="seen", exact=True).click()
        for name in ("the one", "reproduction of the one"):
            expect(browser.get_by_role("link", name=name, exact=True)).to_be_visible()
        assert not browser.get_by_text("Evaluation runs").count()
        for place in (0, 1):
            browser.locator(".ag-cell .ag-selection-checkbox input").nth(place).click()
        browser.get_by_role("button", name="Compare").click()
        expect(browser.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible()
        browser.get_by_role("link", name=run["run_id"]).click()
        expect(browser.get_by_text(f"digitlab reproduce {run['run_id'][:8]}")).to_be_visible()
        expect(browser.get_by_text("Metrics (")).to_be_visible()
        browser.get_by_text("GenAI", exact=True).click()  # who chooses these pages keeps them
        browser.goto(link.partition("#")[0])
        assert browser.evaluate("localStorage['mlflow.workflowType_v1']") == '"genai"'
