"""Whatever a tracking store may raise, as one error of one line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from digitlab.addresses import redacted_for, with_secrets
from digitlab.errors import TrackingError, UsageError


@contextmanager
def told_plainly(uri: str) -> Iterator[None]:
    """Whatever MLflow, SQLAlchemy or requests raise becomes one TrackingError of one line."""
    try:
        yield
    except (TrackingError, UsageError):
        raise
    except Exception as error:
        if "Max retries exceeded" in str(error) or "Read timed out" in str(error):
            raise TrackingError(f"{uri} does not answer") from error
        text = redacted_for(with_secrets(uri), str(error).strip())
        lines: Sequence[str] = text.splitlines() or [type(error).__name__]
        hint = ""
        if "out-of-date database schema" in str(error) or "Can't locate revision" in str(error):
            hint = "; it was made by another MLflow version: `mlflow db upgrade` brings it up to date"
        raise TrackingError(f"tracking store {uri}: {lines[0]}{hint}") from error
