"""MKL as it computes on processors that Intel did not make: others of its kernels, on this processor.

`python -m tests.other_maker MODULE ...` runs a module so. MKL asks a function of its own whether Intel
made the processor; in this process, and only in it, the answer becomes no.
"""

import ctypes
import platform
import runpy
import sys
from pathlib import Path

PAGE = 4096
READ, WRITE, EXECUTE = 1, 2, 4
ANSWER_NO = bytes([0x31, 0xC0, 0xC3])  # xor eax, eax; ret
NOT_POSSIBLE = 77


def pretend() -> bool:
    """Before anything is computed. False where MKL is another one, or none: nothing is changed then."""
    import torch

    if platform.machine() != "x86_64" or sys.platform != "linux":
        return False
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    try:
        address = ctypes.cast(library.mkl_serv_intel_cpu_true, ctypes.c_void_p).value
    except AttributeError:
        return False
    assert address is not None
    start = address // PAGE * PAGE
    mprotect = ctypes.CDLL(None).mprotect
    mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if mprotect(start, 2 * PAGE, READ | WRITE | EXECUTE):
        return False
    ctypes.memmove(address, ANSWER_NO, len(ANSWER_NO))
    return mprotect(start, 2 * PAGE, READ | EXECUTE) == 0


if __name__ == "__main__":
    if not pretend():
        sys.exit(NOT_POSSIBLE)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
