"""A ready-made view of a study in the MLflow UI: columns, sorting and charts worth looking at.

MLflow keeps shared views in a tag of the experiment. The format is undocumented and was read off
MLflow 3.17.2; where a version does not understand it, the page merely opens without it.
"""

import base64
import dataclasses
import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

KEY = "digitlab"

METRICS = ("test/accuracy", "chosen/validation_accuracy", "test/loss")
PARAMS = (
    *("model.name", "data.name", "optimizer.name", "optimizer.learning_rate", "batch_size"),
    *("epochs", "seed"),
)
CURVES = ["validation/accuracy", "validation/loss", "train/accuracy", "train/loss"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a view shows. search_filter: in MLflow's syntax. metric: what it sorts and ranks by."""

    name: str
    search_filter: str = ""
    metric: str = "test/accuracy"
    metrics: Sequence[str] = METRICS
    params: Sequence[str] = PARAMS
    knobs: Sequence[str] = ("model.name", "optimizer.learning_rate", "batch_size", "seed")


STUDY_VIEW = View(name="digitlab")


def sweep_view(name: str, sweep_id: str, metric: str, knobs: Sequence[str]) -> View:
    """The trials of one sweep, best first by `metric`, with the knobs that vary."""
    others = [m for m in ("chosen/validation_accuracy", "test/accuracy", "test/loss") if m != metric]
    return View(
        name=name,
        search_filter=f"tags.sweep LIKE '%{sweep_id}%'",
        metric=metric,
        metrics=[metric, *others],
        params=knobs,
        knobs=knobs,
    )


def tag_name(key: str) -> str:
    return f"mlflow.sharedViewState.{key}"


def view_tag(view: View) -> str:
    """The tag's value."""
    moment = int(time.time() * 1000)
    state = json.dumps(_state(view)).encode()
    packed = "deflate;" + base64.b64encode(zlib.compress(state)).decode()
    return json.dumps({"name": view.name, "createdAt": moment, "updatedAt": moment, "state": packed})


def link(server: str, experiment_id: str, *, key: str = KEY, charts: bool = False) -> str:
    """Opens the runs as a training experiment; without `workflowType` GenAI pages would open."""
    query = f"workflowType=machine_learning&viewStateShareKey={key}"
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"{server}/#/experiments/{experiment_id}/runs?{query}{mode}"


def run_link(server: str, experiment_id: str, run_id: str) -> str:
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def _state(view: View) -> dict[str, Any]:
    columns = [f"metrics.`{name}`" for name in view.metrics]
    columns += [f"params.`{name}`" for name in view.params]
    return {
        "searchFilter": view.search_filter,
        "orderByKey": f"metrics.`{view.metric}`",
        "orderByAsc": view.metric.endswith("loss"),
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
            _chart("BAR", "results", "accuracy", metricKey=view.metric),
            _chart(
                "PARALLEL",
                "results",
                "knobs",
                selectedParams=list(view.knobs),
                selectedMetrics=[view.metric],
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
