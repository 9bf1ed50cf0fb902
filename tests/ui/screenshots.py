"""The README's pictures of the MLflow UI: the runs of `make run`, and the README's sweep.

`make screenshots` takes them; the sweep is made anew, in a temporary folder.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.ui.browser import page, user_interface

CHECKOUT = Path(__file__).resolve().parents[2]
PICTURES = CHECKOUT / "experiments" / "quickstart"
SWEEP = ["model=cnn,logistic_regression", "optimizer.learning_rate=0.001,0.01", "seed=range(3)"]


def main() -> None:
    with user_interface("--study", "quickstart") as (_, charts):
        take(charts, PICTURES / "mlflow_ui.png")
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(CHECKOUT / "conf", Path(home) / "conf")
        os.environ["DIGITLAB_HOME"] = home
        fragment = sweep()
        with user_interface("--study", "digitlab") as (runs, _):
            take(runs.partition("#")[0] + fragment, PICTURES / "sweep_ui.png")


def sweep() -> str:
    """Make the README's sweep; returns the part of its link that follows the server's address."""
    command = [sys.executable, "-m", "digitlab.cli", "sweep", *SWEEP, "epochs=10"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    (fragment,) = set(re.findall(r"http://[^/]+/(#\S+)", told))
    return fragment


def take(link: str, target: Path) -> None:
    with page(height=1130) as browser:
        browser.goto(link)
        browser.get_by_text("Learning curves").first.wait_for()
        browser.wait_for_timeout(6000)  # the charts are drawn one by one
        browser.screenshot(path=target)
    print(f"wrote {target.relative_to(CHECKOUT)}")


if __name__ == "__main__":
    main()
