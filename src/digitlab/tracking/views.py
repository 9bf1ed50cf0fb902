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
from typing import Any, Literal

from digitlab.tracking.names import (
    CHOSEN_ACCURACY,
    SWEEP_TAG,
    TEST_ACCURACY,
    TEST_LOSS,
    TRAIN_ACCURACY,
    TRAIN_LOSS,
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
)

KEY = "digitlab"

MERIT = CHOSEN_ACCURACY  # what runs are chosen by; the test is for looking at
METRICS = (MERIT, TEST_ACCURACY, TEST_LOSS)
PARAMS = (
    *("model.name", "data.name", "optimizer.name", "optimizer.learning_rate", "batch_size"),
    *("epochs", "seed"),
)
CURVES = [VALIDATION_ACCURACY, VALIDATION_LOSS, TRAIN_ACCURACY, TRAIN_LOSS]

RUN_NAME, CREATED, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
MODEL = "params.`model.name`"
FIXED_WIDTHS = {RUN_NAME: 240, CREATED: 150, DURATION: 85, MODEL: 155}  # pixels, for what they hold


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a view shows.

    search_filter: in MLflow's syntax. metric: what it sorts and ranks by. charted: MLflow's word for
    the runs that bars and curves show; the others stay in the table with a closed eye.
    """

    name: str
    search_filter: str = ""
    metric: str = MERIT
    metrics: Sequence[str] = METRICS
    params: Sequence[str] = PARAMS
    knobs: Sequence[str] = ("model.name", "optimizer.learning_rate", "batch_size", "seed")
    charted: Literal["SHOW_ALL", "FIRST_20_RUNS"] = "SHOW_ALL"


STUDY_VIEW = View(name="digitlab")


def sweep_view(name: str, sweep_id: str, metric: str, knobs: Sequence[str]) -> View:
    """The trials of one sweep, best first by `metric`, with the knobs that vary.

    Bars and curves show the best 20: more cannot be distinguished. The other charts show them all.
    """
    others = [m for m in (MERIT, TEST_ACCURACY) if m != metric]
    return View(
        name=name,
        search_filter=f"tags.{SWEEP_TAG} LIKE '%{sweep_id}%'",
        metric=metric,
        metrics=[metric, *others],
        params=knobs,
        knobs=knobs,
        charted="FIRST_20_RUNS",
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
    """Opens the runs as a training experiment, on any server; see ui_server."""
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
        # MLflow applies widths to the columns of its order only, and its 100 pixels cut most names.
        "columnOrder": [RUN_NAME, CREATED, *columns, DURATION],
        "columnWidths": {column: _width(column) for column in columns} | FIXED_WIDTHS,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": view.charted,
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


def _width(column: str) -> int:
    """Pixels that show the whole header of a metric's or a param's column, like "params.`seed`"."""
    _, name, _ = column.split("`")
    return max(70, 25 + 7 * len(name))


def _section(uuid: str, name: str) -> dict[str, Any]:
    """Two charts in a row: in MLflow's three, titles and the axes of parallel coordinates overlap."""
    flags = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, "name": name, "columns": 2, **flags}


def _chart(kind: str, section: str, uuid: str, **details: Any) -> dict[str, Any]:
    flags = {"runsCountToCompare": 50, "deleted": False, "isGenerated": False}
    return {"type": kind, "uuid": uuid, "metricSectionId": section, **flags, **details}


def _curve(metric: str) -> dict[str, Any]:
    """Losses on a log scale: one trial that diverges would press all others onto the axis."""
    return _chart(
        "LINE",
        "curves",
        metric,
        metricKey=metric,
        selectedMetricKeys=[metric],
        xAxisKey="step",
        selectedXAxisMetricKey="",
        selectedYAxisMetricKey="",
        scaleType="log" if metric.endswith("loss") else "linear",
        xAxisScaleType="linear",
        lineSmoothness=0,
        useGlobalLineSmoothing=True,
        useGlobalXaxisKey=True,
        yAxisKey="metric",
        yAxisExpressions=[],
    )
