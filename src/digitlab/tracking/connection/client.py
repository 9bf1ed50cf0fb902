"""MLflow's client of a store: the one place that opens a connection, and needs an address' secrets.

Opening never creates a store.
"""

import sys
from typing import Any

from digitlab.errors import TrackingError
from digitlab.text.addresses import DATABASES, with_secrets
from digitlab.tracking.connection.environment import quiet_mlflow
from digitlab.tracking.connection.location import sqlite_file, unreachable
from digitlab.tracking.connection.plainly import plain_errors

CONNECT_SECONDS = 3
WITH_TIMEOUT = ("postgresql", "postgresql+psycopg", "postgresql+psycopg2")  # drivers that take one


def open_client(uri: str) -> Any:
    """An MlflowClient of the store and its registry of models. Imports mlflow (3 s).

    Raises:
        TrackingError: no such file, or a database that does not let us in; servers are not asked yet.
    """
    if sqlite_file(uri) and (reason := unreachable(uri)):  # MLflow would make one
        raise TrackingError(reason)
    quiet_mlflow()
    from mlflow.client import MlflowClient

    with plain_errors(uri):
        address = with_secrets(uri)
        if address.startswith(DATABASES):
            _check_connection(address)
        return MlflowClient(tracking_uri=address, registry_uri=address)


def import_mlflow() -> None:
    """What `open_client` needs of it."""
    quiet_mlflow()
    import mlflow.client  # noqa: F401


def is_mlflow_imported() -> bool:
    return "mlflow.client" in sys.modules


def _check_connection(address: str) -> None:
    """MLflow repeats an attempt for two minutes, also with a wrong password."""
    import sqlalchemy

    takes_limit = address.partition(":")[0] in WITH_TIMEOUT
    limit = {"connect_timeout": CONNECT_SECONDS} if takes_limit else {}
    engine = sqlalchemy.create_engine(address, connect_args=limit)
    engine.connect().close()
    engine.dispose()
