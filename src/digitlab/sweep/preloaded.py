"""Imported once by the process that all workers are forked from: loads what every trial needs.

Without the garbage collector, which would find nothing for 0.3 s; workers then share these pages for as
long as no collection touches them.
"""

import gc
import importlib

MODULES = ("digitlab.experiment", "digitlab.sweep.work", "mlflow.client", "pyarrow.parquet")

gc.disable()
for name in MODULES:
    importlib.import_module(name)
gc.freeze()
