"""What a process computes on, set up to give the same bits every time."""

import contextlib
import ctypes
import os

import torch

from digitlab.config.schema import Config
from digitlab.errors import ConfigError
from digitlab.models import products
from digitlab.training import arithmetic
from digitlab.training.products import product_for

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def prepare_process(config: Config) -> torch.device:
    """Let this process compute as the configuration says: arithmetic, threads, device, product.

    Raises:
        ConfigError: it cannot.
    """
    arithmetic.prepare(config.arithmetic)
    torch.set_num_threads(config.threads)
    keep_memory()
    device = choose_device(config.device, config.arithmetic)
    products.use(product_for(config, device))
    return device


def keep_memory() -> None:
    """Let this process keep what it frees, where its C library is glibc.

    A step of four CNNs side by side frees some 50 MB. Given back to the system and taken again at the
    next step, they can cost 5,000 page faults and a third of its time.
    """
    _set_memory(trim_threshold=2**31 - 1, mmap_max=0)


def give_memory_back() -> None:
    """Undo `keep_memory`, in a process that goes on with something else."""
    _set_memory(trim_threshold=128 * 1024, mmap_max=65536)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set_memory(*, trim_threshold: int, mmap_max: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, trim_threshold)
        mallopt(M_MMAP_MAX, mmap_max)


def choose_device(requested: str, arithmetic: str) -> torch.device:
    """The device for these knobs, set up to give the same bits every time, in full float32.

    Raises:
        ConfigError: a GPU is asked for, and none is usable.
    """
    device = torch.device(resolved_device(requested, arithmetic))
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
        torch.backends.cudnn.benchmark = False
        # TF32 would round convolutions a thousand times more coarsely than a CPU does, for nothing: the
        # CNN takes 3.0 ms a step on an H100 either way.
        torch.backends.cudnn.allow_tf32 = False
        # Not torch.use_deterministic_algorithms, which imports torch._inductor: 1.5 s and more.
        torch.set_deterministic_debug_mode("warn")
        # What torch.empty leaves is never read: a kernel less for each.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def resolved_device(requested: str, arithmetic: str) -> str:
    """`cpu` or `cuda` for the knobs `device` and `arithmetic`, without setting anything up.

    Raises:
        ConfigError: a GPU is asked for, and none is usable.
    """
    available = requested != "cpu" and arithmetic == "native" and torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise ConfigError(["device must be auto or cpu on this machine (no GPU is usable), got cuda"])
    return "cuda" if available else "cpu"
