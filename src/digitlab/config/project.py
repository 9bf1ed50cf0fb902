"""Where this project's folders lie, whatever folder a command is typed in."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from digitlab.errors import UsageError
from digitlab.text import yaml_text

PACKAGE = Path(__file__).parents[1]  # the folder of digitlab's source
# The clone that the package lies in; None where it is installed, with a conf/ of its own.
CHECKOUT = None if (PACKAGE / "conf").is_dir() else PACKAGE.resolve().parents[1]
SCHEMAS = ".schema"  # of conf/: what editors know of its files
HERE = "<mlruns>"  # in a store's address, as it is written to a file under mlruns/


def home() -> Path:
    """The folder that holds conf/ and mlruns/.

    $DIGITLAB_HOME, or the nearest such folder from the working directory upwards, or the checkout.
    """
    if chosen := os.environ.get("DIGITLAB_HOME"):
        folder = Path(chosen).resolve()
        if not (folder / "conf").is_dir():
            raise UsageError(
                f"no conf/ in {folder}: set DIGITLAB_HOME to the folder that holds conf/ and mlruns/, "
                "or unset it"
            )
        return folder
    if (around := _around_working_directory()) is not None:
        return around
    if CHECKOUT is not None and (CHECKOUT / "conf" / "config.yaml").is_file():
        return CHECKOUT
    raise UsageError(
        "this folder is in no project: `digitlab init NAME` makes one, or set DIGITLAB_HOME to the "
        "folder that holds conf/ and mlruns/"
    )


@contextlib.contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """This process takes the folder for its project meanwhile."""
    before = os.environ.get("DIGITLAB_HOME")
    os.environ["DIGITLAB_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["DIGITLAB_HOME"]
        if before is not None:
            os.environ["DIGITLAB_HOME"] = before


def working_directory() -> Path | None:
    """None if it was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _around_working_directory() -> Path | None:
    here = working_directory()
    for folder in (here, *here.parents) if here else ():
        if (folder / "conf").is_dir() and (folder / "mlruns").is_dir():
            return folder
    return None


def conf() -> Path:
    """The project's own conf/, which may hold only what differs from digitlab's."""
    return home() / "conf"


def conf_folders() -> list[Path]:
    """The project's conf/ and, beneath it, digitlab's own: of files of one name the first counts."""
    shipped = PACKAGE / "conf" if CHECKOUT is None else CHECKOUT / "conf"
    return list(dict.fromkeys([conf(), *([shipped] if shipped.is_dir() else [])]))


def conf_file(name: str) -> Path:
    """The file of that name, such as `model/cnn.yaml`, in whichever conf/ has it."""
    places = [folder / name for folder in conf_folders()]
    return next((file for file in places if file.is_file()), places[0])


def shown_conf_file(file: Path) -> str:
    """`conf/model/cnn.yaml` for the project's own, `digitlab/conf/model/cnn.yaml` for digitlab's."""
    own = conf()
    if file.is_relative_to(own):
        return f"conf/{file.relative_to(own).as_posix()}"
    return f"digitlab/conf/{file.relative_to(conf_folders()[-1]).as_posix()}"


def groups() -> dict[str, list[str]]:
    """The groups of conf/ with their choices: `{"model": ["cnn", "logistic_regression"], ...}`."""
    choices: dict[str, set[str]] = {}
    for folder in conf_folders():
        for group in folder.iterdir():
            if group.is_dir() and not group.name.startswith("."):
                choices.setdefault(group.name, set()).update(f.stem for f in group.glob("*.yaml"))
    return {group: sorted(choices[group]) for group in sorted(choices)}


def default_choices() -> dict[str, str | None]:
    """What conf/config.yaml chooses of each group: `{"model": "logistic_regression", ...}`."""
    listed = yaml_text.read(conf_file("config.yaml"))["defaults"]
    return {
        group: choice for entry in listed if isinstance(entry, dict) for group, choice in entry.items()
    }


def schema_line(group: str | None) -> str:
    """The line by which an editor finds the schema of the files of a group, or of conf/config.yaml."""
    place = f"../{SCHEMAS}/{group}.json" if group else f"{SCHEMAS}/config.json"
    return f"# yaml-language-server: $schema={place}"


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


def data_path(written: str) -> Path:
    """Where a user's own data lie, as the knob `data.path` says it: from the project's folder."""
    return home() / Path(written).expanduser()


def portable_path(given: str) -> str:
    """A path as the configuration keeps it: from the project's folder, if it lies in there."""
    path = Path(given).expanduser()
    if not path.is_absolute():
        return given
    return path.relative_to(home()).as_posix() if path.is_relative_to(home()) else str(path)


def data_root(chosen: str | None) -> Path:
    """The folder of the data sets: the knob `data.root`, $DIGITLAB_DATA, or the user's cache."""
    named = chosen or os.environ.get("DIGITLAB_DATA")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("digitlab"))
