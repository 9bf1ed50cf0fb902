"""What a scheduler of jobs must offer to be an executor (jobs.py). Knows none by name."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol


class Cluster(Protocol):
    """A scheduler of jobs. Its methods raise UsageError where it refuses what is asked for."""

    ask_every_seconds: float

    @property
    def num_workers(self) -> int:
        """Jobs that may run at the same time."""

    def open(self, sweep: str, folder: Path) -> None:
        """Begin to speak to it. folder: for its own files."""

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        """Queue these folders as jobs; returns their names."""

    def ended(self, names: Collection[str]) -> Collection[str]:
        """Those of these jobs that neither run nor wait to do so."""

    def how_it_ended(self, name: str) -> str:
        """Of a job without a result, as the end of a sentence."""

    def cancel(self, names: Collection[str]) -> None:
        """Take these from the queue."""

    def forget(self, names: Collection[str]) -> None:
        """Nothing more will be asked about these, which have ended."""

    def close(self) -> None:
        """Speak to it no more. Jobs go on."""
