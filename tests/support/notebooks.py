"""Notebooks, executed in a kernel of this environment.

    python -m tests.support.notebooks docs/notebook.ipynb [OUTPUT]

writes it with fresh outputs, in place unless OUTPUT is named.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

MAX_SECONDS = 300  # of a cell


def execute(file: Path) -> Any:
    """The notebook with the outputs of a fresh kernel. Raises nbclient's CellExecutionError."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"JUPYTER_RUNTIME_DIR": scratch, "IPYTHONDIR": scratch}
        NotebookClient(notebook, timeout=MAX_SECONDS, kernel_name="python3").execute(
            cwd=str(file.parent)
        )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def outputs(notebook: Any, kind: str) -> list[str]:
    """All outputs of a kind: `image/png`, `text/plain`, `text/html`, or `stream`: what is printed."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = [output["text"] for output in shown if output["output_type"] == "stream"]
    rich = [output.get("data", {}).get(kind) for output in shown]
    return printed if kind == "stream" else [content for content in rich if content]


if __name__ == "__main__":
    import nbformat

    source = Path(sys.argv[1])
    nbformat.write(execute(source), sys.argv[2] if len(sys.argv) > 2 else source)
