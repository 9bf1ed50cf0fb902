"""Which GPUs there are, and which one a worker sees."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path


def gpu_environment(gpus: Sequence[str], per_gpu: int) -> Callable[[int], dict[str, str]]:
    """Worker i sees GPU i // per_gpu only."""
    return lambda index: {"CUDA_VISIBLE_DEVICES": gpus[index // per_gpu % len(gpus)]}


def visible_gpus() -> list[str]:
    """GPUs that we may use, as CUDA_VISIBLE_DEVICES names them, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for part in visible.split(",") if (name := part.strip()) not in ("", "-1")]
    return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
