"""Whatever a tracking store may raise, as one error of one line."""

import importlib.metadata
import importlib.util
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from digitlab.errors import DeletedError, TrackingError, UsageError
from digitlab.text.addresses import redacted_for, with_secrets

REFUSALS = {
    "401": "does not let you in: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD right",
    "403": "does not let this user do that: MLFLOW_TRACKING_USERNAME names another one",
}


@contextmanager
def plain_errors(uri: str) -> Iterator[None]:
    """Whatever MLflow, SQLAlchemy or requests raise becomes one TrackingError of one line."""
    try:
        yield
    except (TrackingError, UsageError):
        raise
    except Exception as error:
        if "Max retries exceeded" in str(error) or "Read timed out" in str(error):
            raise TrackingError(f"{uri} does not answer") from error
        if isinstance(error, ModuleNotFoundError):
            raise TrackingError(_missing_driver(uri, error)) from error
        if refused := re.search(r"failed with error code (401|403)\b", str(error)):
            raise TrackingError(f"{uri} {REFUSALS[refused[1]]}") from error
        if deleted := re.search(r"The run (\w+) must be in the 'active' state", str(error)):
            raise deleted_run(deleted[1], uri) from error
        text = redacted_for(with_secrets(uri), str(error).strip())
        about_flushing = (
            "(raised as a result of Query-invoked autoflush"  # SQLAlchemy, before the cause
        )
        lines: Sequence[str] = [
            *(line for line in text.splitlines() if not line.startswith(about_flushing)),
            type(error).__name__,
        ]
        problem = _of_another_version(str(error), uri) or lines[0]
        raise TrackingError(f"tracking store {uri}: {problem}") from error


def _missing_driver(uri: str, error: ModuleNotFoundError) -> str:
    ours = " (`pip install 'digitlab[server]'`)" if error.name == "psycopg" else ""
    hint = ", or write postgresql://" if uri.startswith("postgresql+") else ""
    return f"tracking store {uri}: needs the Python package {error.name}{ours}{hint}"


def deleted_run(run_id: str, uri: str) -> DeletedError:
    return DeletedError(
        f"the run {run_id[:8]} was deleted in {uri}; to have it back: "
        f"MLFLOW_TRACKING_URI={shlex.quote(uri)} digitlab restore {run_id[:8]}"
    )


def deleted_study(study: str, uri: str) -> DeletedError:
    return DeletedError(
        f"the study {study!r} was deleted in {uri}: choose another with study=NAME, or to have it "
        f"back: MLFLOW_TRACKING_URI={shlex.quote(uri)} digitlab restore {shlex.quote(study)}"
    )


def _of_another_version(message: str, uri: str) -> str | None:
    """MLflow's complaint of its tables, with which of both is newer; None if it is none."""
    match = re.search(r"database schema \(found version (\w+)", message)
    if not match:
        return None
    installed = f"the installed MLflow {importlib.metadata.version('mlflow')}"
    if _is_known(match[1]):
        return f"written by an older MLflow than {installed}: `mlflow db upgrade {uri}` renews it"
    return (
        f"written by a newer MLflow than {installed}, which cannot read it: install the newer one, "
        "or choose another store with tracking.uri=URI"
    )


def _is_known(revision: str) -> bool:
    """Whether the installed MLflow has the migration that led to this form of its tables."""
    spec = importlib.util.find_spec("mlflow.store.db_migrations")
    folders = spec.submodule_search_locations if spec else None
    return any(list(Path(folder).glob(f"versions/{revision}_*.py")) for folder in folders or ())
