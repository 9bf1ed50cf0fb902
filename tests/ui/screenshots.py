"""The README's picture of the MLflow UI, from the runs of `make run`: `make screenshots`."""

from pathlib import Path

from tests.ui.browser import page, user_interface

TARGET = Path(__file__).resolve().parents[2] / "experiments" / "quickstart" / "mlflow_ui.png"

ASSISTANT_CLOSE = '[data-component-id="mlflow.assistant.chat_panel.close"]'


def main() -> None:
    with user_interface("--study", "quickstart") as (_, charts_link), page(height=1130) as browser:
        browser.goto(charts_link)
        browser.get_by_text("Learning curves").first.wait_for(timeout=60_000)
        browser.locator(ASSISTANT_CLOSE).click()  # it covers a quarter of the page
        browser.wait_for_timeout(4000)  # the charts are drawn one by one
        browser.screenshot(path=TARGET)
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
