"""The code that a run was made with: its commit and its patch in a temporary worktree.

The only place that runs what a record brings along, and only where a user asks for it.
"""

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from digitlab.provenance import CHECKOUT, CODE
from digitlab.reproduction.archive import Recorded


class NotAvailable(Exception):  # noqa: N818  (what is so, not a mistake)
    """The recorded code cannot be had: why, and what would mend it."""


@contextmanager
def recorded_code(recorded: Recorded) -> Iterator[Path]:
    """A folder that holds the code as it was; it is removed at the end."""
    code = recorded.document.code
    if code.commit == "unknown":
        raise NotAvailable("the run was made outside a git checkout: its commit is unknown")
    if not all(c in "0123456789abcdef" for c in code.commit):
        raise NotAvailable(f"{code.commit!r} is no commit")
    patch = _checked_patch(recorded)
    with tempfile.TemporaryDirectory(prefix="digitlab-code-") as scratch:
        folder = Path(scratch) / "code"
        try:
            _git(CHECKOUT, "worktree", "add", "--quiet", "--detach", str(folder), code.commit)
        except subprocess.CalledProcessError:
            raise NotAvailable(
                f"commit {code.commit[:12]} is not in this clone: `git fetch --all` may bring it"
            ) from None
        try:
            if patch:
                _apply(folder, patch)
            yield folder
        finally:
            _git(CHECKOUT, "worktree", "remove", "--force", str(folder))


def _checked_patch(recorded: Recorded) -> str:
    """The patch that the document names, and no other."""
    wanted = recorded.document.code.patch
    if wanted is None:
        return ""
    if recorded.patch is None:
        raise NotAvailable(
            "the patch with what was not committed is missing from the record: leave out --code "
            "recorded to judge the code of today, or take the run's archive (`digitlab export`)"
        )
    if hashlib.sha256(recorded.patch.encode()).hexdigest() != wanted:
        raise NotAvailable("the patch is not the one that the record was made with: it was changed")
    return recorded.patch


def _apply(folder: Path, patch: str) -> None:
    """git refuses paths outside the tree by itself; we refuse those outside the code, too."""
    try:
        touched = _git(folder, "apply", "--numstat", "-z", "-", content=patch).split("\0")
        names = [line.rpartition("\t")[2] for line in touched if line]
        if others := [name for name in names if name.partition("/")[0] not in CODE]:
            raise NotAvailable(f"the patch changes {others[0]!a}, which is no code of digitlab")
        _git(folder, "apply", "--binary", "--whitespace=nowarn", "-", content=patch)
    except subprocess.CalledProcessError as error:
        raise NotAvailable(f"the patch does not apply: {error.stderr.strip()[:200]}") from None


def _git(folder: Path, *arguments: str, content: str | None = None) -> str:
    hooks = ("-c", "core.hooksPath=/dev/null")
    return subprocess.run(
        ["git", *hooks, "-C", str(folder), *arguments],
        input=content,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
