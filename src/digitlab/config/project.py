"""Where this project's folders lie, whatever folder a command is typed in."""

import os
from pathlib import Path

import platformdirs

from digitlab.errors import UsageError
from digitlab.text import yaml_text

PACKAGE = Path(__file__).parents[1]  # the folder of digitlab's source
HERE = "<mlruns>"  # in a store's address, as it is written to a file under mlruns/


def home() -> Path:
    """The folder that holds conf/ and mlruns/: $DIGITLAB_HOME, or else the checkout."""
    chosen = os.environ.get("DIGITLAB_HOME")
    folder = Path(chosen).resolve() if chosen else PACKAGE.resolve().parents[1]
    if not (folder / "conf" / "config.yaml").is_file():
        raise UsageError(
            f"no conf/config.yaml in {folder}: set DIGITLAB_HOME to the folder that holds conf/ and "
            "mlruns/, or install digitlab from a checkout with `make setup`"
        )
    return folder


def conf() -> Path:
    return home() / "conf"


def groups() -> dict[str, list[str]]:
    """The groups of conf/ with their choices: `{"model": ["cnn", "logistic_regression"], ...}`."""
    return {
        group.name: sorted(file.stem for file in group.glob("*.yaml"))
        for group in sorted(conf().iterdir())
        if group.is_dir()
    }


def default_choices() -> dict[str, str | None]:
    """What conf/config.yaml chooses of each group: `{"model": "logistic_regression", ...}`."""
    listed = yaml_text.read(conf() / "config.yaml")["defaults"]
    return {
        group: choice for entry in listed if isinstance(entry, dict) for group, choice in entry.items()
    }


def mlruns() -> Path:
    return home() / "mlruns"


def records() -> Path:
    """Runs that are not yet, or not completely, in the tracking store."""
    return mlruns() / "records"


def sweeps() -> Path:
    """Manifests and journals of sweeps."""
    return mlruns() / "sweeps"


def portable_uri(uri: str, mlruns: Path) -> str:
    """The address of a store, written so that it moves with the project whose store it is."""
    return uri.replace(f"sqlite:///{mlruns}/", f"sqlite:///{HERE}/", 1)


def present_uri(recorded: str, mlruns: Path) -> str:
    """What `portable_uri` has written, here and now."""
    return recorded.replace(f"sqlite:///{HERE}/", f"sqlite:///{mlruns}/", 1)


def data_root(chosen: str | None) -> Path:
    """The folder of the data sets: the knob `data.root`, $DIGITLAB_DATA, or the user's cache."""
    named = chosen or os.environ.get("DIGITLAB_DATA")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("digitlab"))
