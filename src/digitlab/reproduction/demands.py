"""Time and memory that running a record takes, and whether its trace shows that it took as much.

Estimates are bounds from the shapes of the model's weights: nothing is allocated or computed.
"""

import dataclasses

import psutil

from digitlab.config.schema import Config
from digitlab.data.sources import sizes_of
from digitlab.models.build import weight_shapes
from digitlab.runs.trace import Trace

FLOAT = 4  # bytes
COPIES = 4  # of each weight: itself, its gradient, an optimizer's two averages
PASSES = 3  # forward, and backward to the weights and to the input
OPERATIONS_PER_SECOND = 1e11  # in this measure; the CNN of conf/ does twice as many on two cores
SECONDS_PER_IMAGE = 5e-6  # whatever the model
LONG_SECONDS = 3600.0
LARGE_SHARE = 0.5  # of the memory that is free


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """Upper bounds, about, for all epochs; memory in bytes."""

    seconds: float
    memory: float

    def __str__(self) -> str:
        return f"up to about {_duration(self.seconds)} and {self.memory / 1e9:.1f} GB of memory"


def estimate_demand(config: Config) -> Demand:
    """Raises DataError where data of a user's own are missing or wrong."""
    data = sizes_of(config.data)
    named = weight_shapes(config.model, image_shape=data.image_shape, num_classes=data.num_classes)
    shapes = [shape for shape in named.values() if shape]
    _, height, width = data.image_shape
    pixels = height * width  # at so many places a convolution's weights are used, at the most
    places = [pixels if len(shape) > 2 else 1 for shape in shapes]
    sizes = [shape.numel() for shape in shapes]
    activations = sum(shape[0] * n for shape, n in zip(shapes, places, strict=True))
    operations = 2 * PASSES * sum(size * n for size, n in zip(sizes, places, strict=True))
    num_images = config.epochs * data.num_images
    return Demand(
        seconds=num_images * (SECONDS_PER_IMAGE + operations / OPERATIONS_PER_SECOND),
        memory=FLOAT * (COPIES * sum(sizes) + 2 * config.batch_size * activations),
    )


def excess(config: Config, trace: Trace | None) -> str | None:
    """Why the user should be asked first; None if the trace shows as much, and this machine has it.

    trace: None if the number of epochs is not the record's own.
    """
    demand = estimate_demand(config)
    if trace and trace.weights and config.epochs > (num_epochs := len(trace.epochs)):
        patience = config.early_stopping.patience
        if not 0 < patience < num_epochs:
            return f"it asks for {config.epochs:,} epochs though its trace has {num_epochs}: {demand}"
    free = psutil.virtual_memory().available
    if demand.seconds > LONG_SECONDS or demand.memory > LARGE_SHARE * free:
        return f"it asks for {demand}; {free / 1e9:.1f} GB are free here"
    return None


def _duration(seconds: float) -> str:
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"
