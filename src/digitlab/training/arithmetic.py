"""What decides how numbers are rounded on this machine, as words and as one digest.

Two runs of one configuration have the same bits where the digests are equal. Knows no runs.
"""

import functools
import hashlib
import os
import platform
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from digitlab.errors import ConfigError

if TYPE_CHECKING:
    from digitlab.models.products import Product

VARIABLES = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA")
# All three: each library chooses its own kernels (github.com/pytorch/pytorch/issues/155552).
PORTABLE = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}

Arithmetic = Literal["native", "portable"]

# Of a description: what multiplies in a logistic regression. Records that name none are of torch.mm.
PRODUCT, PRODUCT_BEFORE = "product", "torch.mm"
PRODUCT_VARIABLE = "DIGITLAB_PRODUCT"  # asks for one by its name


def prepare(arithmetic: Arithmetic) -> None:
    """Let this process compute in `arithmetic`: before torch has computed anything.

    Raises:
        ConfigError: it computes in another arithmetic already. The environment is then as it was.
    """
    import torch

    inherited = {name: os.environ[name] for name in PORTABLE if name in os.environ}
    if arithmetic == "portable":
        os.environ.update(PORTABLE)
    # Asking decides it for good: torch reads ATEN_CPU_CAPABILITY once.
    has_lowest = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    if arithmetic == "portable" and not has_lowest:
        for name in PORTABLE:
            del os.environ[name]
        os.environ.update(inherited)
        raise ConfigError(
            [
                "arithmetic=portable cannot follow another arithmetic in the same process: "
                "start it as a command of its own; in a notebook restart the kernel, and let it be the "
                "first that torch computes"
            ]
        )
    if arithmetic == "native" and inherited == PORTABLE:
        raise ConfigError(
            [
                "arithmetic=native cannot be had in this process: an earlier run or "
                f"{', '.join(PORTABLE)} in the environment made it portable; "
                "start it as a command of its own without them, or say arithmetic=portable"
            ]
        )


def describe(*, threads: int, device: str) -> dict[str, str]:
    """Everything known to change rounding. device: `cpu` or `cuda`."""
    import numpy as np
    import torch

    from digitlab.models import products

    built = torch.__config__.show()
    found = {
        "torch": torch.__version__,
        "onednn": _after("MKL-DNN ", built),
        "mkl": _after("Math Kernel Library Version ", built),
        "numpy": np.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{name: os.environ.get(name, "") for name in VARIABLES},
        "threads": str(threads),
        PRODUCT: products.in_use().name,
        "device": device,
        "cpu": machine()["cpu"],
        "architecture": machine()["architecture"],
        "os": platform.platform(),
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return found


def canary(*, threads: int, device: str) -> str:
    """SHA-256 of a small computation: equal where the arithmetic is."""
    from digitlab.models import products

    return canary_of(products.in_use(), threads=threads, device=device)


@functools.cache
def canary_of(product: "Product", *, threads: int, device: str) -> str:
    """SHA-256 of loss and gradients of one fixed step of both models, in the shapes they train in.

    It tells kernels apart that the names of processors do not. Small numbers would not do: sums of
    products of few bits are exact in whatever order. Nor would one small layer: two kernels may agree
    on it and on no other. No random number is drawn. threads: must be torch's at the moment.
    """
    import torch
    from torch.nn import functional

    from digitlab.models.products import TORCH
    from digitlab.training.optimizers import square_root

    assert torch.get_num_threads() == threads, "the digest is of this number of threads"

    def made(*shape: int) -> torch.Tensor:
        count = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
        return (((count * 7919) % 251 - 125).float() / 999).view(shape).to(device)

    images, labels = made(64, 1, 28, 28), torch.arange(64, device=device) % 10
    kernels = [made(10, 5, 5, 1).permute(0, 3, 1, 2), made(20, 5, 5, 10).permute(0, 3, 1, 2)]
    layers = [made(50, 320), made(10, 50), made(10, 784)]
    weights = [tensor.requires_grad_() for tensor in (*kernels, *layers)]
    biases = [made(len(weight)).requires_grad_() for weight in weights]
    with torch.enable_grad():
        features = images
        for weight, bias in zip(weights[:2], biases[:2], strict=True):
            features = functional.max_pool2d(functional.conv2d(features, weight, bias), 2).relu()
        hidden = functional.linear(features.flatten(1), weights[2], biases[2]).relu()
        deep = functional.linear(hidden, weights[3], biases[3])
        padded = functional.pad(weights[4], (0, 0, 0, 6))
        linear = images.flatten(1).mm(padded.t())[:, :10] + biases[4]
        loss = functional.cross_entropy(deep, labels) + functional.cross_entropy(linear, labels)
    # Of a scalar: autograd given a gradient to begin with imports sympy, for half a second.
    gradients = torch.autograd.grad(loss, [*weights, *biases])
    found = hashlib.sha256()
    for tensor in (loss.detach(), *gradients, *(square_root(g.square()) for g in gradients)):
        found.update(tensor.cpu().contiguous().numpy().tobytes())
    if product is not TORCH:
        found.update(product.name.encode())
        flat = images.flatten(1)
        for tensor in (product.times(flat, padded.detach()), product.outer(made(10, 64), flat)):
            found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def _after(label: str, text: str) -> str:
    found = re.search(re.escape(label) + r"([^\n]*)", text)
    return found[1].strip() if found else "none"


@functools.cache
def machine() -> dict[str, str]:
    return {
        "host": socket.gethostname(),
        "os": platform.platform(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
