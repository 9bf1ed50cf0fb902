"""Logistic regressions side by side: the weights of all are the rows of one matrix."""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from digitlab.data.splits import Split
from digitlab.models.logistic_regression import LogisticRegression
from digitlab.models.predict import batch_size
from digitlab.models.products import TORCH, Product, in_use
from digitlab.training.fused.exact_ways import Compute, Draw, choose, draws
from digitlab.training.fused.stacking import LINE_BYTES, aligned, padded

ROWS = LogisticRegression.PADDED_ROWS  # products are of multiples of it
# W X^T or X W^T, for so many members at once; the last is each member's own product, as it is alone.
PRODUCTS = [
    *("rows 256", "rows 32", "rows 16", "columns 32", "columns 16", "columns 8", "columns 4"),
    "columns 1",
]
BATCHED, APART = "one call", "one by one"
OUTER_PRODUCTS = ["256", "32", "16", "8", "1"]


class Sizes(NamedTuple):
    """Of one member: C classes; P pixels of an image, of all colours; and what multiplies them."""

    classes: int
    pixels: int
    product: Product = TORCH

    @property
    def rows(self) -> int:
        """That it multiplies when it is alone."""
        return LogisticRegression.rows_of(self.classes)


class FusedLogisticRegression:
    """K members in G groups of equal size; those of a group see the same images.

    parameters: weights (K, C, P) and biases (K, C), with 16 spare rows behind the last weights.
    """

    network: ClassVar[type[nn.Module]] = LogisticRegression
    max_groups: ClassVar[int] = 16

    def __init__(
        self, models: Sequence[nn.Module], parameters: Sequence[Tensor], num_groups: int
    ) -> None:
        weight, self._bias = parameters
        self._count = len(weight)
        self._per_group = self._count // num_groups
        classes, pixels = weight.shape[1:]
        self._weight, self._sizes = weight, Sizes(classes, pixels, in_use())
        self._images: Tensor | None = None

    @classmethod
    def spare(cls, model: nn.Module) -> int:
        weight, _ = model.parameters()
        return ROWS * weight.shape[1]

    def logits(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """(K, C, B) of images (G, B, *image_shape); nothing is drawn from `generators`."""
        flat = self._images = images.flatten(2)
        rows, sizes = self._rows()
        if self._is_batched(flat):
            by_class = batched_products(rows, flat, sizes).narrow(1, 0, self._sizes.classes)
            made = torch.empty(by_class.shape, device=by_class.device)
            return torch.add(by_class, self._bias.unsqueeze(-1), out=made)
        way = product_way(self._per_group, flat.shape[1], sizes, flat.device)
        parts = [
            products(rows[start:], self._per_group, own, way, sizes)
            for start, own in zip(self._starts(sizes), flat, strict=True)
        ]
        stacked = parts[0] if len(parts) == 1 else torch.cat(parts)
        by_class = stacked.view(self._count, sizes.classes, -1).narrow(1, 0, self._sizes.classes)
        return by_class.contiguous().add_(self._bias.unsqueeze(-1))

    def backpropagate(self, by_class: Tensor, into: Sequence[Tensor]) -> None:
        """Write the parameters' gradients `into` (K, ...), from those (K, C, B) of the last logits."""
        images, self._images = self._images, None  # so that the next batch finds it in the cache
        assert images is not None, "logits come first"
        torch.sum(by_class, 2, out=into[1])
        if self._is_batched(images):
            torch.bmm(aligned(by_class), images, out=into[0])
            return
        way = outer_product_way(self._per_group, images.shape[1], self._sizes, images.device)
        flat, gradient = by_class.flatten(0, 1), into[0].flatten(0, 1)
        for start, own in zip(self._starts(self._sizes), images, strict=True):
            rows = slice(start, start + self._sizes.classes * self._per_group)
            outer_products(flat[rows], own, way, self._sizes, out=gradient[rows])

    def predict(self, split: Split) -> list[Tensor]:
        """Logits (N, C) of each member, on the CPU."""
        assert self._per_group == self._count, "one group sees the same images"
        size = batch_size(split)
        batches = [
            self.logits(split.normalised(slice(start, start + size)).unsqueeze(0), []).cpu()
            for start in range(0, len(split), size)
        ]
        return [member.t().contiguous() for member in torch.cat(batches, dim=2)]

    def _starts(self, sizes: Sizes) -> range:
        """The first row of each group."""
        return range(0, sizes.classes * self._count, sizes.classes * self._per_group)

    def _rows(self) -> tuple[Tensor, Sizes]:
        """The weights of all as one matrix with 16 spare rows, and its sizes of each member.

        They are where they are, or a copy with as many rows as each multiplies alone, where something
        stands between them so that each begins at a line.
        """
        classes, pixels, _ = self._sizes
        if self._weight.stride(0) == classes * pixels:
            shape = (classes * self._count + ROWS, pixels)
            return self._weight.as_strided(shape, (pixels, 1)), self._sizes
        num_rows = self._sizes.rows
        copied = functional.pad(self._weight, (0, 0, 0, num_rows - classes)).flatten(0, 1)
        return functional.pad(copied, (0, 0, 0, ROWS)), self._sizes._replace(classes=num_rows)

    def _is_batched(self, images: Tensor) -> bool:
        """Whether each member has images of its own, and the products go in one call."""
        groups, size, _ = images.shape
        if groups == 1 or self._per_group > 1:
            return False
        return batched_way(groups, size, self._sizes, images.device) == BATCHED


def batched_products(rows: Tensor, images: Tensor, sizes: Sizes) -> Tensor:
    """(G, C, B): each member's rows times its own images (G, B, P).

    rows: (G * C + 16, P), or as many as the last member multiplies.
    """
    classes, pixels, _ = sizes
    padded_rows = rows.as_strided((len(images), pixels, sizes.rows), (classes * pixels, 1, pixels))
    return images.bmm(padded_rows).narrow(2, 0, classes).transpose(1, 2)


def products(rows: Tensor, count: int, images: Tensor, way: str, sizes: Sizes) -> Tensor:
    """(count * C, B): each member's rows times the images (B, P).

    rows: (count * C or more, P); what stands behind fills the last product to a multiple of 16.
    """
    classes, times = sizes.classes, sizes.product.times
    if way == PRODUCTS[-1] and count == 1:
        return times(images, rows.narrow(0, 0, sizes.rows)).t().narrow(0, 0, classes).contiguous()
    orientation, _, size = way.partition(" ")
    parts = []
    for start in range(0, count, int(size)):
        num_rows = classes * min(int(size), count - start)
        block = rows[classes * start :][: padded(num_rows, ROWS)]
        if orientation == "rows":
            parts.append(times(block, images)[:num_rows])
        else:
            parts.append(times(images, block).t()[:num_rows])
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


def outer_products(by_class: Tensor, images: Tensor, way: str, sizes: Sizes, *, out: Tensor) -> None:
    """(count * C, P) into `out`: each member's rows (count * C, B) times images (B, P)."""
    size = sizes.classes * int(way)
    for part, place in zip(torch.split(by_class, size), torch.split(out, size), strict=True):
        own = part if part.data_ptr() % LINE_BYTES == 0 else part.clone()
        if sizes.product.outer is torch.mm and place.data_ptr() % LINE_BYTES == 0:
            torch.mm(own, images, out=place)
        else:
            place.copy_(sizes.product.outer(own, images))


def own_product(rows: Tensor, images: Tensor, sizes: Sizes) -> Tensor:
    """(C, B) as a model alone makes it: of its rows in a tensor of its own, zeros below them."""
    own = functional.pad(rows[: sizes.classes], (0, 0, 0, sizes.rows - sizes.classes))
    return sizes.product.times(images, own).t().narrow(0, 0, sizes.classes)


@functools.cache
def product_way(count: int, size: int, sizes: Sizes, device: torch.device) -> str:
    """Of PRODUCTS the fastest that is exact for so many members and a batch of that size."""
    if count == 1:
        return PRODUCTS[-1]

    def prepare(draw: Draw) -> tuple[Compute, Callable[[], Sequence[Tensor]]]:
        rows = _rows(draw, count, sizes)
        images = draw.numbers(1, size, sizes.pixels, salt=1)[0]

        def alone() -> list[Tensor]:
            starts = range(0, sizes.classes * count, sizes.classes)
            return [torch.cat([own_product(rows[start:], images, sizes) for start in starts])]

        return lambda way: [products(rows, count, images, way, sizes)], alone

    return choose(
        f"{device.type}: {count} x {sizes.classes} rows of {sizes.pixels} times {size} images",
        [way for way in PRODUCTS if int(way.split()[1]) < 2 * count or way == PRODUCTS[0]],
        draws(device, sizes.classes * count * size),
        prepare,
    )


@functools.cache
def outer_product_way(count: int, size: int, sizes: Sizes, device: torch.device) -> str:
    """Of OUTER_PRODUCTS the fastest that is exact for so many members and a batch of that size."""
    if count == 1:
        return OUTER_PRODUCTS[-1]

    def prepare(draw: Draw) -> tuple[Compute, Callable[[], Sequence[Tensor]]]:
        by_class = draw.gradients(count, sizes.classes, size, salt=0)
        images = draw.numbers(1, size, sizes.pixels, salt=1)[0]

        def compute(way: str) -> list[Tensor]:
            out = images.new_empty(sizes.classes * count, sizes.pixels)
            outer_products(by_class.flatten(0, 1), images, way, sizes, out=out)
            return [out]

        return compute, lambda: [
            torch.cat([sizes.product.outer(own.clone(), images) for own in by_class])
        ]

    return choose(
        f"{device.type}: {count} x {sizes.classes} gradients times {size} images of {sizes.pixels}",
        [way for way in OUTER_PRODUCTS if int(way) < 2 * count or way == OUTER_PRODUCTS[0]],
        draws(device, sizes.classes * count * sizes.pixels),
        prepare,
    )


@functools.cache
def batched_way(count: int, size: int, sizes: Sizes, device: torch.device) -> str:
    """Whether one call is exact for so many members, each with a batch of its own of that size."""

    def prepare(draw: Draw) -> tuple[Compute, Callable[[], Sequence[Tensor]]]:
        rows = _rows(draw, count, sizes)
        images = draw.numbers(count, size, sizes.pixels, salt=1)
        by_class = draw.gradients(count, sizes.classes, size, salt=2)
        own_rows = [rows[sizes.classes * k :] for k in range(count)]

        def compute(way: str) -> list[Tensor]:
            if way == BATCHED:
                return [batched_products(rows, images, sizes), aligned(by_class).bmm(images)]
            made = [products(own_rows[k], 1, images[k], PRODUCTS[-1], sizes) for k in range(count)]
            return [
                torch.stack(made),
                torch.stack(
                    [sizes.product.outer(own.clone(), images[k]) for k, own in enumerate(by_class)]
                ),
            ]

        def alone() -> list[Tensor]:
            own = [image.clone() for image in images]
            made = [own_product(own_rows[k], own[k], sizes) for k in range(count)]
            gradients = [sizes.product.outer(by_class[k].clone(), own[k]) for k in range(count)]
            return [torch.stack(made), torch.stack(gradients)]

        return compute, alone

    return choose(
        f"{device.type}: {count} members' {sizes.classes} rows times {size} images of "
        f"{sizes.pixels} of their own",
        [BATCHED, APART],
        draws(device, sizes.classes * count * size),
        prepare,
    )


def _rows(draw: Draw, count: int, sizes: Sizes) -> Tensor:
    """Weights (count * C + 16, P) with the spare rows, of the size that training leaves."""
    weights = draw.numbers(count, sizes.classes, sizes.pixels, salt=0) / 10
    return functional.pad(weights.flatten(0, 1), (0, 0, 0, ROWS))
