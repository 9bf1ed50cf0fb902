"""The code that a run was made with: its commit and its patch in a temporary worktree.

The only place that runs what a record brings along, and only where a user asks for it.
"""

import contextlib
import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from digitlab.reproduction.archive import Recorded
from digitlab.runs.provenance import CHECKOUT, CODE


class NotAvailable(Exception):  # noqa: N818  (what is so, not a mistake)
    """The recorded code cannot be had: why, and what would mend it."""


@contextmanager
def recorded_code(recorded: Recorded) -> Iterator[Path]:
    """A folder that holds the code as it was; it is removed at the end."""
    code = recorded.document.code
    if code.commit == "unknown":
        raise NotAvailable("the commit of its code is unknown: git told none when it was made")
    patch = _checked_patch(recorded)
    with tempfile.TemporaryDirectory(prefix="digitlab-code-") as scratch:
        folder = Path(scratch) / "code"
        try:
            _git(CHECKOUT, "worktree", "add", "--quiet", "--detach", str(folder), code.commit)
        except subprocess.CalledProcessError as error:
            raise NotAvailable(
                f"commit {code.commit[:12]} is not in this clone (`git fetch --all` may bring it), "
                f"or git refuses it: {_told(error)}"
            ) from None
        try:
            if patch:
                _apply(folder, patch)
            yield folder
        finally:
            with contextlib.suppress(subprocess.CalledProcessError, NotAvailable):  # `gc` prunes it
                _git(CHECKOUT, "worktree", "remove", "--force", str(folder))


def _checked_patch(recorded: Recorded) -> bytes:
    """The patch that the document names, and no other."""
    wanted = recorded.document.code.patch
    if wanted is None:
        return b""
    if recorded.patch is None:
        raise NotAvailable(
            "the patch with what was not committed is missing from the record: leave out --code "
            "recorded to judge the code of today, or take the run's archive (`digitlab export`)"
        )
    if hashlib.sha256(recorded.patch).hexdigest() != wanted:
        raise NotAvailable("the patch is not the one that the record was made with: it was changed")
    return recorded.patch


def _apply(folder: Path, patch: bytes) -> None:
    """git refuses paths outside the tree by itself; we refuse those outside the code, too.

    Judged by what has changed, not by what the patch says: a rename changes the place it takes from.
    """
    try:
        _git(folder, "apply", "--index", "--binary", "--whitespace=nowarn", "-", content=patch)
        listed = _git(folder, "diff", "--cached", "--name-only", "--no-renames", "-z", "HEAD")
    except subprocess.CalledProcessError as error:
        raise NotAvailable(f"the patch does not apply: {_told(error)}") from None
    names = listed.decode("utf-8", "replace").split("\0")[:-1]
    if others := [name for name in names if name.partition("/")[0] not in CODE]:
        raise NotAvailable(f"the patch changes {others[0]!a}, which is no code of digitlab")


def _told(error: subprocess.CalledProcessError) -> str:
    return " ".join(error.stderr.decode("utf-8", "replace").split())[:200]


def _git(folder: Path, *arguments: str, content: bytes | None = None) -> bytes:
    """Raises NotAvailable where git itself is missing or hangs, CalledProcessError where it refuses."""
    command = ["git", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, input=content, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"it takes git, which cannot be run: {error}") from None
    return done.stdout
