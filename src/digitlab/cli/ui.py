"""`digitlab ui`: the MLflow UI on the right store, with a link that opens the runs."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from digitlab.api.settling import opened_store
from digitlab.cli import options
from digitlab.errors import Interrupted, TrackingError
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.lookup import shown_run
from digitlab.text.addresses import with_secrets
from digitlab.text.terminal import echo, say
from digitlab.tracking.connection.environment import quiet_mlflow
from digitlab.tracking.connection.location import artifact_location, shown_server, sqlite_file, unusable
from digitlab.tracking.connection.relocation import update_addresses
from digitlab.tracking.names import PARENT_SWEEP_TAG
from digitlab.tracking.store import RunStore
from digitlab.tracking.views import link, run_link

FIRST_PORT = 5000
START_SECONDS = 120

Links = Callable[[str], str]  # from the address of a server


def serve(uri: str, *, host: str, port: int | None, study: str | None, reference: str | None) -> None:
    """Serve until Ctrl-C; for a tracking server, which has a UI of its own, only print the link.

    reference: the run or the sweep to open, instead of a study.
    """
    store = opened_store(uri)
    links = _links_to(store, reference) if reference else _links_to_runs(store, study)
    if uri.startswith(("http://", "https://")):
        echo(links(shown_server(uri)))
        say("elsewhere on this server MLflow shows its GenAI pages: click on “Model training” once")
        return
    if (file := sqlite_file(uri)) and not unusable(uri):
        update_addresses(file)  # the UI finds artifacts by what the store says
    chosen = options.choose_port(host, port, FIRST_PORT)
    address = options.address(host, chosen)
    echo(f"starting the MLflow UI on {address} (20 s or so)", err=True)
    # SIGTERM and SIGHUP must end the server too, not only Ctrl-C.
    with Interrupts(), suppress(Interrupted), _server(uri, host, chosen) as process:
        _wait(process, address)
        echo(links(address))
        echo("Ctrl-C ends it", err=True)
        process.wait()


def _links_to_runs(store: RunStore, study: str | None) -> Links:
    """Of the study, or of that with the newest run."""
    newest = store.runs(study, limit=1)
    experiment_id = newest[0].experiment_id if newest else store.experiment_id(study) if study else None

    def links(address: str) -> str:
        if experiment_id is None:
            return f"{address}/#/experiments?workflowType=machine_learning"
        charts = link(address, experiment_id, charts=True)
        return f"runs:   {link(address, experiment_id)}\ncharts: {charts}"

    return links


def _links_to(store: RunStore, reference: str) -> Links:
    """A sweep's comparison, or a run. Raises UsageError if there is neither."""
    run = shown_run(store, reference)
    if sweep := run.tags.get(PARENT_SWEEP_TAG):
        return lambda address: (
            f"runs:   {link(address, run.experiment_id, key=sweep)}\n"
            f"charts: {link(address, run.experiment_id, key=sweep, charts=True)}"
        )
    return lambda address: f"run: {run_link(address, run.experiment_id, run.run_id)}"


@contextmanager
def _server(uri: str, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    quiet_mlflow()
    command = [sys.executable, "-m", "uvicorn", "digitlab.tracking.connection.ui_server:app"]
    command += ["--host", host, "--port", str(port), "--log-level", "warning"]
    store = {"MLFLOW_BACKEND_STORE_URI": with_secrets(uri)}  # arguments are there for all to read
    if folder := artifact_location(uri):
        store["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = folder.as_uri()
    # Its own session: Ctrl-C reaches this process only, which then ends the whole group.
    with subprocess.Popen(
        command,
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if not os.environ.get("DIGITLAB_VERBOSE") else None,
        env={**os.environ, **store},
    ) as process:
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise TrackingError(
                f"the MLflow UI ended with code {process.returncode}; DIGITLAB_VERBOSE=1 shows why"
            )
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TrackingError(f"the MLflow UI did not answer on {address} within {START_SECONDS} s")
