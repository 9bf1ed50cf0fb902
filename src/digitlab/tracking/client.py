"""MLflow's client of a store: the one place that opens a connection, and needs an address' secrets."""

from typing import Any

from digitlab.addresses import DATABASES, with_secrets
from digitlab.tracking.environment import quiet_mlflow
from digitlab.tracking.location import sqlite_file
from digitlab.tracking.plainly import told_plainly
from digitlab.tracking.sqlite_store import ensure_store


def open_client(uri: str) -> Any:
    """An MlflowClient. Imports mlflow (3 s) and creates a missing SQLite file.

    Raises:
        TrackingError: a database that does not let us in; servers are not asked yet.
    """
    quiet_mlflow()
    if file := sqlite_file(uri):
        ensure_store(file)
    from mlflow.client import MlflowClient

    with told_plainly(uri):
        address = with_secrets(uri)
        if address.startswith(DATABASES):
            _check_connection(address)
        return MlflowClient(tracking_uri=address, registry_uri=address)


def _check_connection(address: str) -> None:
    """MLflow repeats an attempt for two minutes, also with a wrong password."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(address)
    engine.connect().close()
    engine.dispose()
