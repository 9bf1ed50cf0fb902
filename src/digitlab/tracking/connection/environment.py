"""The environment that every use of MLflow by digitlab runs under: set before mlflow is imported."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",  # too long is our error, never a silent cut
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 8 processes of GenAI jobs less
    RETRIES: "2",  # the default waits 4 minutes for a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
UNHEEDED = {  # of an active run, which digitlab never has
    "MLFLOW_EXPERIMENT_NAME": "study=NAME names the experiment",
    "MLFLOW_EXPERIMENT_ID": "study=NAME names the experiment",
    "MLFLOW_RUN_ID": "every run is a new one",
}
OVERRIDABLE = {RETRIES, "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_LOGGING_LEVEL"}


def quiet_mlflow() -> None:
    """No telemetry, no pickle, no long silences; an inherited active run is forgotten."""
    for name, value in SETTINGS.items():
        if name in OVERRIDABLE:
            os.environ.setdefault(name, value)
        else:
            os.environ[name] = value
    for inherited in UNHEEDED:
        os.environ.pop(inherited, None)
    # It logs with a traceback whatever its database raises, and raises it too: `plain_errors` tells it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@contextmanager
def sent_once() -> Iterator[None]:
    """For what creates something: MLflow repeats a request whose answer is lost or comes too late."""
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[RETRIES]
        else:
            os.environ[RETRIES] = before
