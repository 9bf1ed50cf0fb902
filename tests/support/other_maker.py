"""MKL as it computes on processors that Intel did not make: others of its kernels, on this processor.

`python -m tests.support.other_maker zen MODULE ...` runs a module as on AMD's Zen, `other` as on any
other. MKL asks functions of its own which processor this is; in this process alone they answer
otherwise. Some products depend on addresses then: with `zen` on those of operands, with `other` of
results too.
"""

import ctypes
import platform
import runpy
import sys
from pathlib import Path

PAGE = 4096
READ, WRITE, EXECUTE = 1, 2, 4
NO, YES = bytes([0x31, 0xC0, 0xC3]), bytes([0xB8, 1, 0, 0, 0, 0xC3])  # eax = 0 or 1; ret
NOT_INTEL = {"mkl_serv_intel_cpu_true": NO, "mkl_serv_intel_cpu": NO}
PROCESSORS = {"zen": {**NOT_INTEL, "mkl_serv_cpuiszen": YES}, "other": NOT_INTEL}
NOT_POSSIBLE = 77


def pretend(processor: str) -> bool:
    """Before anything is computed. False where MKL is another one, or none: nothing is changed then."""
    import torch

    if platform.machine() != "x86_64" or sys.platform != "linux":
        return False
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    if not all(hasattr(library, name) for name in PROCESSORS[processor]):
        return False
    mprotect = ctypes.CDLL(None).mprotect
    mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for name, answer in PROCESSORS[processor].items():
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        assert address is not None
        start = address // PAGE * PAGE
        if mprotect(start, 2 * PAGE, READ | WRITE | EXECUTE):
            return False
        ctypes.memmove(address, answer, len(answer))
        mprotect(start, 2 * PAGE, READ | EXECUTE)
    return True


if __name__ == "__main__":
    if not pretend(sys.argv[1]):
        sys.exit(NOT_POSSIBLE)
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
