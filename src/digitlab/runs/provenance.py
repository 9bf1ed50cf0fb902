"""Where a run comes from: code, versions, command. Collects only; compares nothing."""

import functools
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from digitlab import __version__
from digitlab.config import project
from digitlab.text.addresses import redacted

CHECKOUT = project.CHECKOUT
CODE = ("src", "conf", "pyproject.toml", "requirements.lock")
NOTIFY = "--notify"
PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "mlflow", "scikit-learn")


def command_line() -> str:
    """The command of this process, to be pasted, without secrets: `digitlab train model=cnn`."""
    program = Path(sys.argv[0])
    is_module = program.parts[-2:] == ("cli", "__main__.py")  # python -m digitlab.cli
    name = "digitlab" if is_module else program.name
    return shlex.join([name, *map(redacted, _recorded(sys.argv[1:]))])


def _recorded(arguments: Sequence[str]) -> list[str]:
    """Without whom to notify: an address with secrets, and not for whoever repeats the command."""
    before = ["", *arguments]
    return [
        argument
        for previous, argument in zip(before, arguments, strict=False)
        if previous != NOTIFY and argument.partition("=")[0] != NOTIFY
    ]


@functools.cache
def versions() -> dict[str, str]:
    """Versions of digitlab, Python and the packages that decide a result."""
    by_name = {"digitlab": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            by_name[name] = "not installed"
    return by_name


@functools.cache
def code() -> dict[str, str]:
    """Commit of the checkout and whether it was changed since: `{"commit": ..., "dirty": "false"}`."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": "unknown", "dirty": "unknown"}
    changes = _git("status", "--porcelain", "--", *_existing_code())
    return {"commit": commit, "dirty": "unknown" if changes is None else str(bool(changes)).lower()}


@functools.cache
def unreadable_checkout() -> str | None:
    """Why git does not name the commit of this checkout, with a remedy; None if it does."""
    if CHECKOUT is None:
        return None
    if not any((folder / ".git").exists() for folder in (CHECKOUT, *CHECKOUT.parents)):
        return None
    commit, complaint = _ask_git("rev-parse", "HEAD")
    if commit is not None:
        return None
    remedy = f": git config --global --add safe.directory {shlex.quote(str(CHECKOUT))}"
    is_refused = "safe.directory" in complaint
    reason = complaint.splitlines()[0] if complaint else "git does not answer"
    return f"no record can name the commit of the code: {reason}{remedy if is_refused else ''}"


@functools.cache
def patch() -> str:
    """The uncommitted changes of CODE, staged, unstaged and untracked, in git's format; often empty.

    Binary files are included, files that git ignores are not.
    """
    if code()["dirty"] != "true":
        return ""
    with tempfile.TemporaryDirectory() as scratch:  # an index for this alone: the user's stays as it is
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        _git("read-tree", "HEAD", environment=index)
        _git("add", "--all", "--", *_existing_code(), environment=index)
        changes = _git("diff", "--cached", "--binary", "--no-color", "HEAD", environment=index) or ""
    files = re.split("^(?=diff --git )", changes, flags=re.MULTILINE)
    return "".join(_redacted_lines(f) if f.startswith("diff --git a/conf/") else f for f in files)


def _redacted_lines(changes: str) -> str:
    """A file of conf/ may name a store with its password; what was committed cannot be hidden."""
    return re.sub("^[+].*$", lambda added: redacted(added[0]), changes, flags=re.MULTILINE)


def _existing_code() -> list[str]:
    return [name for name in CODE if CHECKOUT is not None and (CHECKOUT / name).exists()]


def _git(*arguments: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Output of git in the checkout; None without git, without a checkout or outside a repository."""
    return _ask_git(*arguments, environment=environment)[0]


def _ask_git(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[str | None, str]:
    """Output of git, or None and its complaint.

    An installed package has none: a repository that holds its environment is somebody else's.
    """
    if CHECKOUT is None:
        return None, "digitlab is installed as a package"
    try:
        done = subprocess.run(
            ["git", "-c", "core.safecrlf=false", "-C", str(CHECKOUT), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.CalledProcessError as error:
        return None, error.stderr.strip()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        return None, str(error)
    return done.stdout if arguments[0] == "diff" else done.stdout.strip(), ""
