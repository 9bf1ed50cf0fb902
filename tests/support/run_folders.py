"""A run folder as a test needs one."""

from pathlib import Path

from digitlab.tracking.process import this_process
from digitlab.tracking.run_folder import RunFolder


def new_record(folder: Path, **changes: object) -> RunFolder:
    details = {
        "study": "s",
        "name": "n",
        "tracking_uri": "sqlite:///x.db",
        "params": {"seed": "0"},
        "tags": {},
        "process": this_process(),
    }
    return RunFolder.create(folder, **(details | changes))
