"""A real browser on the real MLflow UI: Debian's Chromium, driven by Playwright."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PATIENCE = 60_000  # milliseconds: two shared cores may be busy with something else


@contextmanager
def user_interface(*arguments: str, num_links: int = 2) -> Iterator[list[str]]:
    """`digitlab ui`, up; gives the links that it printed: runs, charts; of a run one."""
    command = [sys.executable, "-m", "digitlab.cli", "ui", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield [process.stdout.readline().split()[1] for _ in range(num_links)]
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def page(*, width: int = 1500, height: int = 620) -> Iterator[Page]:
    """A page of a browser that has never seen the UI before."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": width, "height": height})
        opened.set_default_timeout(PATIENCE)
        yield opened
        browser.close()
