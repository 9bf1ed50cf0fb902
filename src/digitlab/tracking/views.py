"""A ready-made view of a study in the MLflow UI: columns, sorting and charts worth looking at.

MLflow keeps shared views in a tag of the experiment. The format is undocumented and was read off
MLflow 3.17.2; where a version does not understand it, the page merely opens without it.
"""

import base64
import json
import time
import zlib
from typing import Any

KEY = "digitlab"
TAG = f"mlflow.sharedViewState.{KEY}"

METRICS = ["test/accuracy", "chosen/validation_accuracy", "test/loss"]
PARAMS = ["model.name", "data.name", "optimizer.name", "optimizer.learning_rate", "batch_size"]
PARAMS += ["epochs", "seed"]
CURVES = ["validation/accuracy", "validation/loss", "train/accuracy", "train/loss"]


def view_tag(name: str, search_filter: str = "") -> str:
    """The tag's value for a view of the runs that `search_filter` (MLflow's syntax) leaves."""
    moment = int(time.time() * 1000)
    state = json.dumps(_state(search_filter)).encode()
    packed = "deflate;" + base64.b64encode(zlib.compress(state)).decode()
    view = {"name": name, "createdAt": moment, "updatedAt": moment, "state": packed}
    return json.dumps(view)


def link(server: str, experiment_id: str, *, charts: bool = False) -> str:
    """Opens the runs as a training experiment; without `workflowType` GenAI pages would open."""
    query = f"workflowType=machine_learning&viewStateShareKey={KEY}"
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"{server}/#/experiments/{experiment_id}/runs?{query}{mode}"


def run_link(server: str, experiment_id: str, run_id: str) -> str:
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def _state(search_filter: str) -> dict[str, Any]:
    columns = [f"metrics.`{name}`" for name in METRICS] + [f"params.`{name}`" for name in PARAMS]
    return {
        "searchFilter": search_filter,
        "orderByKey": "metrics.`test/accuracy`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOWALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
        "compareRunSections": [_section("results", "Results"), _section("curves", "Learning curves")],
        "compareRunCharts": [
            _chart("BAR", "results", "accuracy", metricKey="test/accuracy"),
            _chart(
                "PARALLEL",
                "results",
                "knobs",
                selectedParams=["model.name", "optimizer.learning_rate", "batch_size", "seed"],
                selectedMetrics=["test/accuracy"],
                showAllRuns=True,
            ),
            *(_curve(metric) for metric in CURVES),
        ],
    }


def _section(uuid: str, name: str) -> dict[str, Any]:
    flags = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, "name": name, **flags}


def _chart(kind: str, section: str, uuid: str, **details: Any) -> dict[str, Any]:
    flags = {"runsCountToCompare": 50, "deleted": False, "isGenerated": False}
    return {"type": kind, "uuid": uuid, "metricSectionId": section, **flags, **details}


def _curve(metric: str) -> dict[str, Any]:
    return _chart(
        "LINE",
        "curves",
        metric,
        metricKey=metric,
        selectedMetricKeys=[metric],
        xAxisKey="step",
        selectedXAxisMetricKey="",
        selectedYAxisMetricKey="",
        scaleType="linear",
        xAxisScaleType="linear",
        lineSmoothness=0,
        useGlobalLineSmoothing=True,
        useGlobalXaxisKey=True,
        yAxisKey="metric",
        yAxisExpressions=[],
    )
