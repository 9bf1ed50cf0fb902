"""Logistic regressions side by side: the weights of all are the rows of one matrix."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from digitlab.data import NUM_CLASSES, SIDE, Split
from digitlab.evaluation import BATCH_SIZE
from digitlab.fused.forms import choose, random
from digitlab.fused.stacking import padded
from digitlab.models import LogisticRegression

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
    is_exact: whether each member's bits have to be those that it has alone.
    """

    def __init__(self, parameters: Sequence[Tensor], num_groups: int, *, is_exact: bool) -> None:
        weight, self._bias = parameters
        self._count, self._is_exact = len(weight), is_exact
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
        form = product_form(self._per_group, flat.shape[1], flat.device, is_exact=self._is_exact)
        parts = [
            products(self._rows.narrow(0, start, len(self._rows) - start), self._per_group, own, form)
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
            torch.bmm(by_class, images, out=into[0])
            return
        form = outer_product_form(
            self._per_group, images.shape[1], images.device, is_exact=self._is_exact
        )
        flat, gradient = by_class.flatten(0, 1), into[0].flatten(0, 1)
        for start, own in zip(self._starts(), images, strict=True):
            rows = slice(start, start + NUM_CLASSES * self._per_group)
            outer_products(flat[rows], own, form, out=gradient[rows])

    def predict(self, split: Split) -> list[Tensor]:
        """Logits (N, 10) of each member, on the CPU."""
        assert self._per_group == self._count, "one group sees the same images"
        batches = [
            self.logits(split.normalised(slice(start, start + BATCH_SIZE)).unsqueeze(0), []).cpu()
            for start in range(0, len(split), BATCH_SIZE)
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
        return batched_form(groups, size, images.device, is_exact=self._is_exact) == BATCHED


def batched_products(rows: Tensor, images: Tensor) -> Tensor:
    """(G, 10, B): each member's ten rows times its own images (G, B, 784).

    rows: (G * 10 + 6 or more, 784).
    """
    each = (len(images), PIXELS, ROWS)
    padded_rows = rows.as_strided(each, (NUM_CLASSES * PIXELS, 1, PIXELS))
    return images.bmm(padded_rows).narrow(2, 0, NUM_CLASSES).transpose(1, 2)


def products(rows: Tensor, count: int, images: Tensor, form: str) -> Tensor:
    """(count * 10, B): each member's ten rows times the images (B, 784).

    rows: (count * 10 or more, 784); what stands behind fills the last product to a multiple of 16.
    """
    if form == PRODUCTS[-1] and count == 1:
        return images.mm(rows.narrow(0, 0, ROWS).t()).t().narrow(0, 0, NUM_CLASSES).contiguous()
    orientation, _, size = form.partition(" ")
    parts = []
    for start in range(0, count, int(size)):
        wanted = NUM_CLASSES * min(int(size), count - start)
        block = rows[NUM_CLASSES * start :][: padded(wanted, ROWS)]
        if orientation == "rows":
            parts.append(block.mm(images.t())[:wanted])
        else:
            parts.append(images.mm(block.t()).t()[:wanted])
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


def outer_products(by_class: Tensor, images: Tensor, form: str, *, out: Tensor) -> None:
    """(count * 10, 784) into `out`: each member's ten rows (count * 10, B) times images (B, 784)."""
    size = NUM_CLASSES * int(form)
    if len(by_class) <= size:
        torch.mm(by_class, images, out=out)
        return
    for start in range(0, len(by_class), size):
        torch.mm(by_class[start : start + size], images, out=out[start : start + size])


@functools.cache
def product_form(count: int, size: int, device: torch.device, *, is_exact: bool) -> str:
    """Of PRODUCTS the fastest, that is exact for so many members and a batch of that size."""
    if count == 1 or not is_exact:
        return PRODUCTS[-1] if count == 1 else PRODUCTS[0]

    def made() -> tuple[Tensor, Tensor]:
        rows = random(NUM_CLASSES * count + ROWS, PIXELS, device=device) / 28
        return rows, random(size, PIXELS, device=device, seed=1)

    return choose(
        f"{device.type}: {count} x 10 rows times {size} images",
        [form for form in PRODUCTS if int(form.split()[1]) < 2 * count or form == PRODUCTS[0]],
        lambda form: [products(made()[0], count, made()[1], form)],
        lambda: [products(made()[0], count, made()[1], PRODUCTS[-1])],
    )


@functools.cache
def outer_product_form(count: int, size: int, device: torch.device, *, is_exact: bool) -> str:
    """Of OUTER_PRODUCTS the fastest, that is exact for so many members and a batch of that size."""
    if count == 1 or not is_exact:
        return OUTER_PRODUCTS[-1] if count == 1 else OUTER_PRODUCTS[0]

    def compute(form: str) -> list[Tensor]:
        by_class = random(NUM_CLASSES * count, size, device=device) / size
        out = torch.empty(NUM_CLASSES * count, PIXELS, device=device)
        outer_products(by_class, random(size, PIXELS, device=device, seed=1), form, out=out)
        return [out]

    return choose(
        f"{device.type}: {count} x 10 gradients times {size} images",
        [form for form in OUTER_PRODUCTS if int(form) < 2 * count or form == OUTER_PRODUCTS[0]],
        compute,
        lambda: compute(OUTER_PRODUCTS[-1]),
    )


@functools.cache
def batched_form(count: int, size: int, device: torch.device, *, is_exact: bool) -> str:
    """Whether one call is exact for so many members, each with a batch of its own of that size."""
    if not is_exact:
        return BATCHED
    rows = random(NUM_CLASSES * count + ROWS, PIXELS, device=device) / 28
    images = random(count, size, PIXELS, device=device, seed=1)
    by_class = random(count, NUM_CLASSES, size, device=device, seed=2) / size

    def compute(form: str) -> list[Tensor]:
        if form == BATCHED:
            return [batched_products(rows, images), by_class.bmm(images)]
        made = [products(rows[NUM_CLASSES * k :], 1, own, PRODUCTS[-1]) for k, own in enumerate(images)]
        gradients = [own.mm(batch) for own, batch in zip(by_class, images, strict=True)]
        return [torch.stack(made), torch.stack(gradients)]

    return choose(
        f"{device.type}: {count} members' rows times {size} images of their own",
        [BATCHED, APART],
        compute,
        lambda: compute(APART),
    )
