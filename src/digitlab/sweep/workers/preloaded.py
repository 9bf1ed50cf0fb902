"""Imported once by the process that all workers are forked from: loads what every trial needs.

Without the garbage collector, which would find nothing for 0.3 s; workers then share these pages for as
long as no collection touches them.
"""

import gc
import importlib
import sys
from types import TracebackType

from digitlab.errors import machine_refusal

MODULES = ("digitlab.runs.experiment", "digitlab.sweep.workers.trial", "pyarrow.parquet")


def told_in_one_line(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What the machine refuses: a process more, for example."""
    if refusal := machine_refusal(error):
        sys.stderr.write(f"digitlab: {refusal}\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = told_in_one_line
gc.disable()
for name in MODULES:
    importlib.import_module(name)
gc.freeze()
