"""Tracking server, scheduler and controller on one host, the worker on another; the link is cut."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.dask.cluster import DaskCluster, TwoHosts
from tests.support.cli import slow
from tests.support.processes import is_training, wait_for
from tests.support.servers import free_port
from tests.support.sweeps import check_values, end_of, tree, undisturbed

CUT_SECONDS, EPOCHS = 60, 60
SWEEP = ["sweep", "model=cnn", f"epochs={EPOCHS}", "seed=0,1", "record.plots=never"]
SWEEP += ["checkpoint.every_seconds=1", "engine=sequential"]
FOR_EVER = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "sh"]  # as a service manager does


@slow
def test_a_link_that_is_cut_loses_and_doubles_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := TwoHosts.missing():
        pytest.skip(reason)
    pytest.importorskip("distributed")
    (tmp_path / "undisturbed").mkdir()
    expected = undisturbed(tmp_path / "undisturbed", SWEEP)
    folder = tmp_path / "far"
    folder.mkdir()
    monkeypatch.setenv("NO_PROXY", TwoHosts.near)
    with TwoHosts() as hosts, contextlib.ExitStack() as started:
        near, far = hosts.at(hosts.near), hosts.at(hosts.far)
        server = tracking_server(folder, near, hosts.near, started)
        cluster = DaskCluster(folder, host=hosts.near, at=near)
        started.callback(cluster.end)
        cluster.add_worker(at=[*far, *FOR_EVER])
        line = [*SWEEP, "study=sweep", "executor=dask", f"executor.scheduler={cluster.address}"]
        controller = subprocess.Popen(
            [*near, sys.executable, "-m", "digitlab.cli", *line, f"tracking.uri={server}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.callback(controller.communicate)
        started.callback(controller.kill)
        wait_for(lambda: is_training(home), "a trial trains on the other host", 180)
        hosts.cut()
        time.sleep(CUT_SECONDS)
        hosts.mend()
        code, output = end_of(controller)
        assert code == 0, output + cluster.log()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'server.db'}")
    check_values(folder / "server.db", expected, epochs=EPOCHS)
    assert {run.tags["digitlab.host"] for run in tree("sweep")[1]} == {"far"}


def tracking_server(folder: Path, at: list[str], host: str, started: contextlib.ExitStack) -> str:
    """A real one on that host; returns its address."""
    port, log = free_port(), folder / "server.log"
    line = [*at, sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", host]
    line += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*line, "--artifacts-destination", str(folder / "artifacts")],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
        )
    started.callback(process.wait)
    started.callback(os.killpg, process.pid, signal.SIGKILL)
    wait_for(lambda: "Application startup complete" in log.read_text(), "the server answers", 180)
    return f"http://{host}:{port}"
