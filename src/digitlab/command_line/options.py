"""Arguments and options that several subcommands share."""

from collections.abc import Sequence

import click

from digitlab.completion import complete_override

OVERRIDES = click.argument(
    "overrides", nargs=-1, metavar="[KNOB=VALUE]...", shell_complete=complete_override
)
STORE = click.option(
    "--tracking-uri", metavar="URI", help="Tracking store; default: MLFLOW_TRACKING_URI or mlruns/."
)
TRACKING = click.option(
    "--tracking-uri", metavar="URI", help="Tracking store; default: what conf/ and the environment say."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def store_uri(overrides: Sequence[str], tracking_uri: str | None) -> str:
    """The tracking store that `tracking=`, `tracking.uri=`, --tracking-uri or the environment mean."""
    from digitlab.composition import compose
    from digitlab.errors import UsageError
    from digitlab.tracking.location import resolve_uri

    wrong = [o for o in overrides if not o.startswith(("tracking=", "tracking.uri="))]
    if wrong:
        raise UsageError(f"only tracking=NAME and tracking.uri=URI are understood here, got {wrong[0]}")
    return resolve_uri(tracking_uri or compose(overrides).tracking.uri)
