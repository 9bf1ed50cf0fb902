"""MLflow's server as `digitlab ui` starts it: `uvicorn digitlab.tracking.connection.ui_server:app`.

Its pages are of two kinds, and a browser that has chosen none is shown those for GenAI, in which a
study has "0 traces" and no runs. MLflow keeps the choice in the browser and asks neither the server
nor the experiment's tags; so its one page is served with the choice of model training made. Whoever
chooses GenAI in the sidebar keeps it.

It ends when its standard input does, which whoever started it holds open: after a kill, too.
The store is named by MLFLOW_BACKEND_STORE_URI and MLFLOW_DEFAULT_ARTIFACT_ROOT, as for `mlflow server`.
"""

import json
import os
import sys
import threading
from pathlib import Path

from mlflow.server import app as pages
from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
from mlflow.server.fastapi_app import app as app

# What MLflow 3.17.2 keeps in a browser, as it spells it: the kind of pages, and whether the panel of
# its assistant, which covers a quarter of them, has opened by itself once.
CHOICES = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
CHOOSE = """<head><script>
for (const [key, value] of Object.entries(%s))
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
</script>"""


def _page() -> str:
    """Without the cache's validators of MLflow's own: a browser may hold the page as it is."""
    page = Path(str(pages.static_folder), "index.html").read_text()
    return page.replace("<head>", CHOOSE % json.dumps(CHOICES), 1)


def _end_with_starter() -> None:
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=_end_with_starter, daemon=True).start()
pages.view_functions["serve"] = _page
for ours, mlflows in (
    (BACKEND_STORE_URI_ENV_VAR, "MLFLOW_BACKEND_STORE_URI"),
    (ARTIFACT_ROOT_ENV_VAR, "MLFLOW_DEFAULT_ARTIFACT_ROOT"),
):
    if mlflows in os.environ:
        os.environ[ours] = os.environ[mlflows]
