"""What somebody sees who follows the link that `digitlab ui` prints."""

import pytest

from tests.conftest import Cli

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from tests.ui.browser import CHROMIUM, page, user_interface  # noqa: E402

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
