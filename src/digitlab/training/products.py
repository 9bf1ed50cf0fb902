"""Which library multiplies for logistic regressions on this machine: chosen once, for all projects.

One for all, alone and side by side: a member that is trained alone knows nothing of how many others
there are, and must have the same bits. See models/products.py for what there is.
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock

from digitlab.config.schema import Config, LogisticRegressionConfig
from digitlab.errors import ConfigError
from digitlab.models.products import ALL, TORCH, Product, in_use, is_available, use
from digitlab.text.files import write_atomically
from digitlab.training import arithmetic
from digitlab.training.arithmetic import PRODUCT_VARIABLE
from digitlab.training.fused.exact_ways import Draw, measure
from digitlab.training.fused.linear import (
    OUTER_PRODUCTS,
    PRODUCTS,
    ROWS,
    Sizes,
    outer_product_way,
    outer_products,
    product_way,
    products,
)

FILE = "products.json"
CLASSES, PIXELS = 10, 784
BATCH_SIZE, MEMBERS = 100, 64
LEAST_GAIN = 1.15  # side by side: what is chosen must not depend on how busy the machine is
LEAST_ALONE = 0.95  # of the speed of torch.mm
ROUNDS = 8


def product_for(config: Config, device: torch.device) -> Product:
    """What a run of that configuration multiplies with: the fastest, or as the environment asks.

    Raises:
        ConfigError: the environment names an unknown one.
    """
    is_open = (
        isinstance(config.model, LogisticRegressionConfig)
        and device.type == "cpu"
        and config.threads == 1
        and config.arithmetic == "native"
    )
    if not is_open:
        return TORCH
    return usual_product()


def usual_product() -> Product:
    """What one thread of this machine's processor multiplies with: as asked for, or the fastest."""
    asked = _asked()
    if asked is None:
        return fastest_product()
    return asked if is_available(asked) else TORCH


@contextlib.contextmanager
def asking_for(name: str) -> Iterator[None]:
    """As if the environment named that product."""
    before = os.environ.get(PRODUCT_VARIABLE)
    os.environ[PRODUCT_VARIABLE] = name
    try:
        yield
    finally:
        del os.environ[PRODUCT_VARIABLE]
        if before is not None:
            os.environ[PRODUCT_VARIABLE] = before


def _asked() -> Product | None:
    name = os.environ.get(PRODUCT_VARIABLE)
    if name and name not in ALL:
        raise ConfigError([f"{PRODUCT_VARIABLE} must be one of {', '.join(ALL)}, got {name!r}"])
    return ALL[name] if name else None


@functools.cache
def fastest_product() -> Product:
    """Of this machine, on one thread: as an earlier process has found, or else tried now."""
    before = in_use()
    use(TORCH)  # the description must not depend on the answer
    try:
        described = arithmetic.describe(threads=1, device="cpu")
        key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
        with contextlib.ExitStack() as alone:  # processes that begin together must choose alike
            with contextlib.suppress(OSError):  # a disk that is full costs a trial, no result
                _file().parent.mkdir(parents=True, exist_ok=True)
                alone.enter_context(FileLock(_file().with_suffix(".lock")))
            known = _read().get(key)
            if known in ALL and is_available(ALL[known]):
                return ALL[known]
            found = _find()
            with contextlib.suppress(OSError):
                write_atomically(_file(), json.dumps({**_read(), key: found.name}, indent=1))
            return found
    finally:
        use(before)


def _find() -> Product:
    """The fastest by a clear margin, in blocks that have the bits of each member alone.

    First each in one block: where none is faster, nothing else is tried.
    """
    with torch.no_grad():
        there = [product for product in ALL.values() if is_available(product)]
        promising = _faster(there, lambda product: (PRODUCTS[0], OUTER_PRODUCTS[0]))
        exact = _faster([TORCH, *promising], _exact_ways) if promising else []
    return exact[0] if exact else TORCH


def _exact_ways(product: Product) -> tuple[str, str]:
    """Of both products of a step of MEMBERS."""
    use(product)  # answers are kept by it
    sizes, cpu = Sizes(CLASSES, PIXELS, product), torch.device("cpu")
    return product_way(MEMBERS, BATCH_SIZE, sizes, cpu), outer_product_way(
        MEMBERS, BATCH_SIZE, sizes, cpu
    )


def _faster(some: Sequence[Product], ways: Callable[[Product], tuple[str, str]]) -> list[Product]:
    """Those clearly faster than torch.mm side by side and not slower alone, the fastest first."""
    cpu = torch.device("cpu")
    alone = {p.name: _step(p, 1, PRODUCTS[-1], OUTER_PRODUCTS[-1]) for p in some}
    together = {p.name: _step(p, MEMBERS, *ways(p)) for p in some}
    gains = [_gains(measure(works, cpu, ROUNDS)) for works in (alone, together)]
    better = [p for p in some if gains[0][p.name] >= LEAST_ALONE and gains[1][p.name] >= LEAST_GAIN]
    return sorted(better, key=lambda product: -gains[1][product.name])


def _gains(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds[TORCH.name] / taken for name, taken in seconds.items()}


def _step(product: Product, count: int, forward: str, backward: str) -> Callable[[], None]:
    """Both products of a step of so many members."""
    draw, sizes = Draw(0, False, torch.device("cpu")), Sizes(CLASSES, PIXELS, product)
    rows = draw.numbers(1, CLASSES * count + ROWS, PIXELS, salt=0)[0]
    images = draw.numbers(1, BATCH_SIZE, PIXELS, salt=1)[0]
    gradients = draw.numbers(1, CLASSES * count, BATCH_SIZE, salt=2)[0]
    out = torch.empty(CLASSES * count, PIXELS)

    def compute() -> None:
        products(rows, count, images, forward, sizes)
        outer_products(gradients, images, backward, sizes, out=out)

    return compute


def _file() -> Path:
    return Path(platformdirs.user_cache_dir("digitlab")) / FILE


def _read() -> dict[str, str]:
    try:
        known = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}
