"""Logistic regressions side by side: the weights of all are the rows of one matrix."""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from digitlab.data.splits import NUM_CLASSES, SIDE, Split
from digitlab.models.logistic_regression import LogisticRegression
from digitlab.models.predict import batch_size
from digitlab.training.fused.exact_ways import Compute, Draw, choose, draws
from digitlab.training.fused.stacking import LINE_BYTES, aligned, padded

PIXELS = SIDE * SIDE
ROWS = LogisticRegression.PADDED_ROWS
# W X^T or X W^T, for so many members at once; the last is each member's own product, as it is alone.
PRODUCTS = [
    *("rows 256", "rows 32", "rows 16", "columns 32", "columns 16", "columns 8", "columns 4"),
    "columns 1",
]
BATCHED, APART = "one call", "one by one"
OUTER_PRODUCTS = ["256", "32", "16", "8", "1"]


class FusedLogisticRegression:
    """K members in G groups of equal size; those of a group see the same images.

    parameters: weights (K, 10, 784) and biases (K, 10), with 16 spare rows behind the last weights.
    """

    network: ClassVar[type[nn.Module]] = LogisticRegression
    spare: ClassVar[int] = ROWS * PIXELS
    max_groups: ClassVar[int] = 16

    def __init__(
        self, models: Sequence[nn.Module], parameters: Sequence[Tensor], num_groups: int
    ) -> None:
        weight, self._bias = parameters
        self._count = len(weight)
        self._per_group = self._count // num_groups
        self._rows = weight.as_strided((NUM_CLASSES * self._count + ROWS, PIXELS), (PIXELS, 1))
        self._images: Tensor | None = None

    def logits(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """(K, 10, B) of images (G, B, 1, 28, 28); nothing is drawn from `generators`."""
        flat = self._images = images.flatten(2)
        if self._is_batched(flat):
            by_class = batched_products(self._rows, flat)
            made = torch.empty(by_class.shape, device=by_class.device)
            return torch.add(by_class, self._bias.unsqueeze(-1), out=made)
        way = product_way(self._per_group, flat.shape[1], flat.device)
        parts = [
            products(self._rows.narrow(0, start, len(self._rows) - start), self._per_group, own, way)
            for start, own in zip(self._starts(), flat, strict=True)
        ]
        by_class = (parts[0] if len(parts) == 1 else torch.cat(parts)).view(
            self._count, NUM_CLASSES, -1
        )
        return by_class.add_(self._bias.unsqueeze(-1))

    def backpropagate(self, by_class: Tensor, into: Sequence[Tensor]) -> None:
        """Write the parameters' gradients `into` (K, ...), from those (K, 10, B) of the last logits."""
        images, self._images = self._images, None  # so that the next batch finds it in the cache
        assert images is not None, "logits come first"
        torch.sum(by_class, 2, out=into[1])
        if self._is_batched(images):
            torch.bmm(aligned(by_class), images, out=into[0])
            return
        way = outer_product_way(self._per_group, images.shape[1], images.device)
        flat, gradient = by_class.flatten(0, 1), into[0].flatten(0, 1)
        for start, own in zip(self._starts(), images, strict=True):
            rows = slice(start, start + NUM_CLASSES * self._per_group)
            outer_products(flat[rows], own, way, out=gradient[rows])

    def predict(self, split: Split) -> list[Tensor]:
        """Logits (N, 10) of each member, on the CPU."""
        assert self._per_group == self._count, "one group sees the same images"
        size = batch_size(split)
        batches = [
            self.logits(split.normalised(slice(start, start + size)).unsqueeze(0), []).cpu()
            for start in range(0, len(split), size)
        ]
        return [member.t().contiguous() for member in torch.cat(batches, dim=2)]

    def _starts(self) -> range:
        """The first row of each group."""
        return range(0, NUM_CLASSES * self._count, NUM_CLASSES * self._per_group)

    def _is_batched(self, images: Tensor) -> bool:
        """Whether each member has images of its own, and the products go in one call."""
        groups, size, _ = images.shape
        if groups == 1 or self._per_group > 1:
            return False
        return batched_way(groups, size, images.device) == BATCHED


def batched_products(rows: Tensor, images: Tensor) -> Tensor:
    """(G, 10, B): each member's ten rows times its own images (G, B, 784).

    rows: (G * 10 + 6 or more, 784).
    """
    each = (len(images), PIXELS, ROWS)
    padded_rows = rows.as_strided(each, (NUM_CLASSES * PIXELS, 1, PIXELS))
    return images.bmm(padded_rows).narrow(2, 0, NUM_CLASSES).transpose(1, 2)


def products(rows: Tensor, count: int, images: Tensor, way: str) -> Tensor:
    """(count * 10, B): each member's ten rows times the images (B, 784).

    rows: (count * 10 or more, 784); what stands behind fills the last product to a multiple of 16.
    """
    if way == PRODUCTS[-1] and count == 1:
        return images.mm(rows.narrow(0, 0, ROWS).t()).t().narrow(0, 0, NUM_CLASSES).contiguous()
    orientation, _, size = way.partition(" ")
    parts = []
    for start in range(0, count, int(size)):
        num_rows = NUM_CLASSES * min(int(size), count - start)
        block = rows[NUM_CLASSES * start :][: padded(num_rows, ROWS)]
        if orientation == "rows":
            parts.append(block.mm(images.t())[:num_rows])
        else:
            parts.append(images.mm(block.t()).t()[:num_rows])
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


def outer_products(by_class: Tensor, images: Tensor, way: str, *, out: Tensor) -> None:
    """(count * 10, 784) into `out`: each member's ten rows (count * 10, B) times images (B, 784)."""
    size = NUM_CLASSES * int(way)
    for part, place in zip(torch.split(by_class, size), torch.split(out, size), strict=True):
        begins_at_line = part.data_ptr() % LINE_BYTES == 0
        torch.mm(part if begins_at_line else part.clone(), images, out=place)


def own_product(rows: Tensor, images: Tensor) -> Tensor:
    """(10, B) as a model alone makes it: of its ten rows in a tensor of its own, zeros below them."""
    own = functional.pad(rows[:NUM_CLASSES], (0, 0, 0, ROWS - NUM_CLASSES))
    return images.mm(own.t()).t().narrow(0, 0, NUM_CLASSES)


@functools.cache
def product_way(count: int, size: int, device: torch.device) -> str:
    """Of PRODUCTS the fastest that is exact for so many members and a batch of that size."""
    if count == 1:
        return PRODUCTS[-1]

    def prepare(draw: Draw) -> tuple[Compute, Callable[[], Sequence[Tensor]]]:
        rows = _rows(draw, count)
        images = draw.numbers(1, size, PIXELS, salt=1)[0]

        def alone() -> list[Tensor]:
            starts = range(0, NUM_CLASSES * count, NUM_CLASSES)
            return [torch.cat([own_product(rows[start:], images) for start in starts])]

        return lambda way: [products(rows, count, images, way)], alone

    return choose(
        f"{device.type}: {count} x 10 rows times {size} images",
        [way for way in PRODUCTS if int(way.split()[1]) < 2 * count or way == PRODUCTS[0]],
        draws(device, NUM_CLASSES * count * size),
        prepare,
    )


@functools.cache
def outer_product_way(count: int, size: int, device: torch.device) -> str:
    """Of OUTER_PRODUCTS the fastest that is exact for so many members and a batch of that size."""
    if count == 1:
        return OUTER_PRODUCTS[-1]

    def prepare(draw: Draw) -> tuple[Compute, Callable[[], Sequence[Tensor]]]:
        by_class = draw.gradients(count, NUM_CLASSES, size, salt=0)
        images = draw.numbers(1, size, PIXELS, salt=1)[0]

        def compute(way: str) -> list[Tensor]:
            out = images.new_empty(NUM_CLASSES * count, PIXELS)
            outer_products(by_class.flatten(0, 1), images, way, out=out)
            return [out]

        return compute, lambda: [torch.cat([own.clone().mm(images) for own in by_class])]

    return choose(
        f"{device.type}: {count} x 10 gradients times {size} images",
        [way for way in OUTER_PRODUCTS if int(way) < 2 * count or way == OUTER_PRODUCTS[0]],
        draws(device, NUM_CLASSES * count * PIXELS),
        prepare,
    )


@functools.cache
def batched_way(count: int, size: int, device: torch.device) -> str:
    """Whether one call is exact for so many members, each with a batch of its own of that size."""

    def prepare(draw: Draw) -> tuple[Compute, Callable[[], Sequence[Tensor]]]:
        rows = _rows(draw, count)
        images = draw.numbers(count, size, PIXELS, salt=1)
        by_class = draw.gradients(count, NUM_CLASSES, size, salt=2)

        def compute(way: str) -> list[Tensor]:
            if way == BATCHED:
                return [batched_products(rows, images), aligned(by_class).bmm(images)]
            made = [products(rows[NUM_CLASSES * k :], 1, images[k], PRODUCTS[-1]) for k in range(count)]
            return [
                torch.stack(made),
                torch.stack([own.clone().mm(images[k]) for k, own in enumerate(by_class)]),
            ]

        def alone() -> list[Tensor]:
            own = [image.clone() for image in images]
            made = [own_product(rows[NUM_CLASSES * k :], own[k]) for k in range(count)]
            gradients = [by_class[k].clone().mm(own[k]) for k in range(count)]
            return [torch.stack(made), torch.stack(gradients)]

        return compute, alone

    return choose(
        f"{device.type}: {count} members' rows times {size} images of their own",
        [BATCHED, APART],
        draws(device, NUM_CLASSES * count * size),
        prepare,
    )


def _rows(draw: Draw, count: int) -> Tensor:
    """Weights (count * 10 + 16, 784) with the spare rows, of the size that training leaves."""
    weights = draw.numbers(count, NUM_CLASSES, PIXELS, salt=0) / 10
    return functional.pad(weights.flatten(0, 1), (0, 0, 0, ROWS))
