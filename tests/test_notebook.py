"""docs/notebook.ipynb runs from the top to its end, shows what it says, and gives the prompt back."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import CHECKOUT
from tests.support.notebooks import outputs

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = CHECKOUT / "docs" / "notebook.ipynb"
MAX_BYTES = 120_000
LOCAL = re.compile(r"(?<![\w/.:])/(?:home|root|tmp|work|usr|opt|Users|var|mnt)\b")
LONG_RUN = """
import digitlab
try:
    digitlab.train(["epochs=1000000"])
except KeyboardInterrupt:
    print("the prompt is back:", digitlab.runs()[0].status, digitlab.train(["epochs=1"]).status)
"""


def execute(source: Path, target: Path) -> None:
    """In a process of its own, as a user's tools would, with nothing of pytest around it."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    command = [sys.executable, "-m", "tests.support.notebooks", str(source), str(target)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, env=environment)
    assert told.returncode == 0, told.stderr[-4000:]


def code(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_it_runs_and_shows_curves_a_frame_a_comparison_and_a_verdict(tmp_path: Path) -> None:
    execute(NOTEBOOK, tmp_path / "out.ipynb")
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in shown if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert len(outputs(notebook, "image/png")) == 3, "curves, a study, digits"
    assert any("dataframe" in text for text in outputs(notebook, "text/html"))
    assert any("Is it real?" in text for text in outputs(notebook, "text/markdown"))
    assert any(text.startswith("IDENTICAL") for text in outputs(notebook, "text/plain"))
    assert any("epoch 10/10" in text for text in outputs(notebook, "text/html")), "a bar's end"
    assert any("did you mean model?" in text for text in outputs(notebook, "stream"))


def test_what_is_shown_of_it_here_is_small_and_of_no_machine() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    assert len(outputs(notebook, "image/png")) == 3
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            texts = {
                k: v
                for k, v in output.get("data", {"": output.get("text")}).items()
                if "image" not in k
            }
            assert not LOCAL.search(str(texts)), texts


def test_ctrl_c_in_a_cell_ends_the_run_as_killed_and_gives_the_prompt_back(tmp_path: Path) -> None:
    from jupyter_client.manager import KernelManager

    os.environ |= {"JUPYTER_RUNTIME_DIR": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        request = client.execute(LONG_RUN)
        said = ""
        deadline = time.monotonic() + 120
        while "the prompt is back" not in said:
            assert time.monotonic() < deadline, said
            message = client.get_iopub_msg(timeout=60)
            assert message["msg_type"] != "error", message["content"]
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] in ("display_data", "update_display_data"):  # the bar of the run
                if not said and "epoch " in message["content"]["data"]["text/plain"]:
                    manager.interrupt_kernel()
                    said = " "
            elif message["msg_type"] == "stream":
                said += message["content"]["text"]
        assert "the prompt is back: KILLED FINISHED" in said
        assert "recorded as KILLED: digitlab show" in said
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
