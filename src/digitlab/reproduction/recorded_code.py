"""The code that a run was made with: its commit and its patch in a temporary worktree.

The only place that runs what a record contains, and only where a user asks for it.
"""

import contextlib
import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from digitlab.reproduction.archive import Recorded
from digitlab.reproduction.verdict import Cannot
from digitlab.runs.provenance import CHECKOUT, CODE


@contextmanager
def recorded_code(recorded: Recorded) -> Iterator[Path]:
    """A folder that holds the code as it was; it is removed at the end. Raises Cannot without it."""
    code = recorded.document.code
    if code.commit == "unknown":
        raise Cannot("the commit of its code is unknown: git named none when it was made")
    if CHECKOUT is None:
        raise Cannot(
            f"this digitlab is no clone that could hold commit {code.commit[:12]}: it is installed as "
            "a package"
        )
    patch = _checked_patch(recorded)
    with tempfile.TemporaryDirectory(prefix="digitlab-code-") as scratch:
        folder = Path(scratch) / "code"
        try:
            _git(CHECKOUT, "worktree", "add", "--quiet", "--detach", str(folder), code.commit)
        except subprocess.CalledProcessError as error:
            raise Cannot(
                f"commit {code.commit[:12]} is not in this clone (`git fetch --all` may bring it), "
                f"or git refuses it: {_complaint(error)}"
            ) from None
        try:
            if patch:
                _apply(folder, patch)
            yield folder
        finally:
            with contextlib.suppress(subprocess.CalledProcessError, Cannot):  # `gc` prunes it
                _git(CHECKOUT, "worktree", "remove", "--force", str(folder))


def _checked_patch(recorded: Recorded) -> bytes:
    """The patch that the document names, and no other."""
    digest = recorded.document.code.patch
    if digest is None:
        return b""
    if recorded.patch is None:
        raise Cannot(
            "the patch with what was not committed is missing from the record: leave out --code "
            "recorded to judge the code of today, or take the run's archive (`digitlab export`)"
        )
    if hashlib.sha256(recorded.patch).hexdigest() != digest:
        raise Cannot("the patch is not the one that the record was made with: it was changed")
    return recorded.patch


def _apply(folder: Path, patch: bytes) -> None:
    """git refuses paths outside the tree; paths outside the code are refused here.

    By what has changed, not by what the patch says: a rename changes the place it takes from, too.
    """
    try:
        _git(folder, "apply", "--index", "--binary", "--whitespace=nowarn", "-", content=patch)
        listed = _git(folder, "diff", "--cached", "--name-only", "--no-renames", "-z", "HEAD")
    except subprocess.CalledProcessError as error:
        raise Cannot(f"the patch does not apply: {_complaint(error)}") from None
    names = listed.decode("utf-8", "replace").split("\0")[:-1]
    if others := [name for name in names if name.partition("/")[0] not in CODE]:
        raise Cannot(f"the patch changes {others[0]!a}, which is no code of digitlab")


def _complaint(error: subprocess.CalledProcessError) -> str:
    return " ".join(error.stderr.decode("utf-8", "replace").split())[:200]


def _git(folder: Path, *arguments: str, content: bytes | None = None) -> bytes:
    """Raises Cannot if git is missing or hangs, CalledProcessError if it refuses."""
    command = ["git", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, input=content, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Cannot(f"it takes git, which cannot be run: {error}") from None
    return done.stdout
