"""What somebody sees who follows the link that `digitlab sweep` prints, filters by it, and compares.

DIGITLAB_SCREENSHOTS names a folder to keep pictures of it in.
"""

import os
import re
from pathlib import Path

import pytest

from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun
from tests.support.cli import Cli

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Locator, Page, expect  # noqa: E402

from tests.ui.browser import CHROMIUM, PATIENCE, page, user_interface  # noqa: E402

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

SCREENSHOTS = os.environ.get("DIGITLAB_SCREENSHOTS")  # read now: a test's environment has none
EPOCHS = 2
SWEEP = ("optimizer=sgd,adam", "optimizer.learning_rate=0.1,0.01")
KNOBS = ("optimizer.name", "optimizer.learning_rate")
MERIT = "chosen/validation_accuracy"
ACCURACIES = (MERIT, "test/accuracy")
CURVES = ("validation/accuracy", "validation/loss", "train/accuracy", "train/loss")
NOTHING_CUT_OFF = """cell => [...cell.querySelectorAll("*")].every(
    e => getComputedStyle(e).textOverflow !== "ellipsis" || e.scrollWidth <= e.clientWidth)"""
Row = dict[str, str]


def test_a_sweep_is_charted_ranked_filtered_and_compared(digitlab: Cli) -> None:
    sweep = digitlab("sweep", "epochs=2", "executor=inprocess", "study=seen", *SWEEP)
    assert digitlab("train", "epochs=2", "study=seen").code == 0
    found = re.search(r"http://127\.0\.0\.1:5000/(\S+viewStateShareKey=(\w+)\S*)", sweep.err)
    assert found, sweep.err
    runs = {run.run_id: run for run in RunStore(resolve_uri(None)).runs("seen")}
    trials = {key: run for key, run in runs.items() if "trial" in run.tags}
    assert (len(runs), len(trials)) == (6, 4)
    expect.set_options(timeout=PATIENCE)
    with user_interface("--study", "seen") as (link, _), page(height=1130) as browser:
        server = link.partition("#")[0]
        browser.goto(server + found[1])
        check_charts(browser, trials)
        browser.goto(server + found[1].replace("&compareRunsMode=CHART", ""))
        check_table(browser, trials)
        browser.goto("about:blank")  # MLflow leaves the page empty when only the fragment changes
        browser.goto(link.replace("&viewStateShareKey=digitlab", ""))
        check_filter(browser, found[2], runs, trials)
        browser.get_by_label("Select all runs").click()
        browser.get_by_role("button", name="Compare", exact=True).click()
        check_comparison(browser, trials)


def check_charts(browser: Page, trials: dict[str, StoredRun]) -> None:
    """A bar, a parallel line and four curves for each trial."""
    expect(run_rows(browser)).to_have_count(len(trials))
    expect(card(browser, MERIT).locator(".barlayer .point")).to_have_count(len(trials))
    parallel = card(browser, "Parallel Coordinates")
    expect(parallel.locator("canvas.foreground")).to_be_visible()
    labels = parallel.locator(".dimension .label")
    expect(labels).to_have_count(len(KNOBS) + 1)
    for label, name in zip(labels.all_text_contents(), [*KNOBS, MERIT], strict=True):
        start, _, end = label.partition("...")  # MLflow leaves out the middle of a long name
        assert name.startswith(start)
        assert name.endswith(end)
    save_picture(browser, "charts")
    for metric in CURVES:
        points = card(browser, metric).locator(".scatterlayer .point")
        expect(points).to_have_count(len(trials) * EPOCHS)
        card(browser, metric).hover()
        browser.mouse.wheel(0, 300)  # a chart is drawn when it comes into sight


def check_table(browser: Page, trials: dict[str, StoredRun]) -> None:
    """The trials alone, best first, with what varies and what came out, under headers one can read."""
    expect(browser.get_by_text(f"{len(trials)} matching runs")).to_be_visible()
    expect(run_rows(browser)).to_have_count(len(trials))
    save_picture(browser, "table")
    rows = read_rows(browser)
    assert {row["run"] for row in rows} == set(trials)
    merits = [trials[row["run"]].metrics[MERIT] for row in rows]
    assert merits == sorted(merits, reverse=True)
    for row in rows:
        run = trials[row["run"]]
        assert row["attributes.`Run Name`"] == run.name
        for knob in KNOBS:
            assert row[f"params.`{knob}`"] == run.params[knob]
        for metric in ACCURACIES:
            assert float(row[f"metrics.`{metric}`"]) == pytest.approx(run.metrics[metric])
    columns = {key for key in rows[0] if key.startswith(("params.", "metrics."))}
    assert columns == {f"params.`{k}`" for k in KNOBS} | {f"metrics.`{m}`" for m in ACCURACIES}
    for column in columns:
        header = browser.locator(f'.ag-header-cell[col-id="{column}"]')
        expect(header).to_contain_text(column.split("`")[1])
        assert header.evaluate(NOTHING_CUT_OFF), f"{column} is cut off"


def check_filter(
    browser: Page, sweep_id: str, runs: dict[str, StoredRun], trials: dict[str, StoredRun]
) -> None:
    """On the plain page, by typing: MLflow folds trials under their sweep until a metric sorts them."""
    expect(browser.get_by_text(f"{len(runs)} matching runs")).to_be_visible()
    search = browser.get_by_placeholder("metrics.rmse")
    search.fill(f"tags.sweep LIKE '%{sweep_id}%'")
    search.press("Enter")
    expect(browser.get_by_text(f"{len(trials) + 1} matching runs")).to_be_visible()
    expect(run_rows(browser)).to_have_count(1)
    run_rows(browser).get_by_role("button").click()
    expect(run_rows(browser)).to_have_count(len(trials) + 1)
    own, *others = [row["run"] for row in read_rows(browser)]
    assert runs[own].tags["digitlab.kind"] == "sweep"
    assert set(others) == set(trials)
    save_picture(browser, "filter")

    browser.get_by_role("button", name="Sort").click()
    browser.get_by_role("menuitemcheckbox", name=MERIT, exact=True).click()
    browser.keyboard.press("Escape")
    expect(browser.get_by_text(f"{len(trials)} matching runs")).to_be_visible()
    expect(run_rows(browser)).to_have_count(len(trials))
    assert {row["run"] for row in read_rows(browser)} == set(trials)


def check_comparison(browser: Page, trials: dict[str, StoredRun]) -> None:
    """Every trial's swept knobs and accuracies, as recorded, and their parallel coordinates."""
    expect(browser.get_by_text(f"Comparing {len(trials)} Runs from 1 Experiment")).to_be_visible()
    plot = browser.locator(".pcp-plot")
    expect(plot.locator(".y-axis").nth(1)).to_be_visible()
    choose_knobs(browser)
    expect(plot.locator(".axis-title")).to_have_text([*KNOBS, MERIT])
    save_picture(browser, "compare", whole=True)

    params = read_comparison_tables(browser)
    compared = [trials[run_id] for run_id in params["Run ID:"]]
    assert len(compared) == len(trials)
    assert params["Run Name:"] == [run.name for run in compared]
    for knob in KNOBS:
        assert params[knob] == [run.params[knob] for run in compared]
    metrics = read_comparison_metrics(browser, len(compared))
    for metric in ACCURACIES:
        assert metrics[metric] == pytest.approx([run.metrics[metric] for run in compared], abs=5e-4)


def choose_knobs(browser: Page) -> None:
    """In place of the three params that MLflow shows first: those that differ, by the alphabet."""
    browser.get_by_role("button", name="Clear All").click()
    boxes = browser.locator(".du-bois-light-select-multiple")
    for box, names in ((boxes.nth(0), KNOBS), (boxes.nth(1), [MERIT])):
        box.click()
        for name in names:
            option = browser.locator(f'.du-bois-light-select-item[title="{name}"]:visible')
            browser.locator(".rc-virtual-list:visible").hover()
            for _ in range(50):  # only the options in sight exist
                if option.count():
                    break
                browser.mouse.wheel(0, 100)
                browser.wait_for_timeout(100)
            option.click()
        browser.keyboard.press("Escape")


def card(browser: Page, title: str) -> Locator:
    """One chart of the runs page."""
    cards = browser.get_by_test_id("experiment-view-compare-runs-card")
    return cards.filter(has=browser.get_by_title(title, exact=True))


def run_rows(browser: Page) -> Locator:
    """The runs table's rows, in their pinned half: checkbox, name, date."""
    return browser.locator(".ag-pinned-left-cols-container .ag-row")


def read_rows(browser: Page) -> list[Row]:
    """The runs table from top to bottom: `run` is the run's id, other keys are MLflow's columns."""
    rows: list[Row] = browser.locator(".ag-row .ag-cell").evaluate_all(
        """cells => {
            const rows = new Map();
            for (const cell of cells) {
                const row = cell.closest('.ag-row'), index = Number(row.getAttribute('row-index'));
                if (!rows.has(index)) rows.set(index, {run: row.getAttribute('row-id')});
                const value = cell.querySelector('a') ?? cell;
                rows.get(index)[cell.getAttribute('col-id')] = value.textContent.trim();
            }
            return [...rows].sort((a, b) => a[0] - b[0]).map(([_, row]) => row);
        }"""
    )
    return rows


def read_comparison_tables(browser: Page) -> dict[str, list[str]]:
    """Details, params and tags of the Compare page: a value for each run."""
    rows: list[list[str]] = browser.locator(".mlflow-compare-table tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )
    return {name: values for name, *values in rows}


def read_comparison_metrics(browser: Page, num_runs: int) -> dict[str, list[float]]:
    """The metrics of the Compare page, in two grids that scroll side by side: names, values."""
    grids = browser.locator(".ReactVirtualized__Grid__innerScrollContainer")
    expect(grids).to_have_count(2)
    names, values = (grids.nth(i).locator(":scope > *").all_inner_texts() for i in range(2))
    assert len(values) == len(names) * num_runs
    rows = [values[i : i + num_runs] for i in range(0, len(values), num_runs)]
    return {
        name.strip(): [float(value or "nan") for value in row]
        for name, row in zip(names, rows, strict=True)
    }


def save_picture(browser: Page, name: str, *, whole: bool = False) -> None:
    if SCREENSHOTS:
        browser.wait_for_timeout(3000)  # for the charts' animation: nothing is asserted on it
        browser.screenshot(path=Path(SCREENSHOTS) / f"sweep_{name}.png", full_page=whole)
