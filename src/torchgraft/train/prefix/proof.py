"""Whether a model run in parts gives what it gives whole: outputs, buffers and gradients, on one real batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchgraft.trace.tree import mapped, tensors
from torchgraft.train.prefix.record import Drifted, called, state_kept
from torchgraft.train.prefix.rows import close

if TYPE_CHECKING:
    from torchgraft.train.prefix.prefix import Prefix

__all__ = ["count_of", "picked", "proven", "uneven"]

Alike = Callable[[Tensor, Tensor], bool]


def count_of(inputs: Any) -> int:
    """Count the samples of a batch: rows of its first tensor."""
    return len(tensors(inputs)[0])


def picked(inputs: Any, rows: list[int]) -> Any:
    """Give a batch of some samples of a batch."""
    count = count_of(inputs)
    return mapped(lambda one: one[rows] if one.dim() and len(one) == count else one, inputs)


def proven(prefix: Prefix, inputs: Any, alike: Alike) -> str:
    """Run a batch whole, whole with the cut taken, and in parts; say what differs.

    The model, its gradients, buffers and random numbers are as before.
    """
    model = prefix.model
    trained = [one for one in model.parameters() if one.requires_grad]
    whole = _passed(model, lambda: called(model, inputs), trained)
    rows: list[Tensor] = []

    def taking() -> Any:
        output, found = prefix.first(model, inputs)
        rows.extend(one.clone() for one in found)
        return output

    if not _equal(whole, _passed(model, taking, trained), alike):
        return "looking at a pass changes what it gives"
    if not _equal(
        whole, _passed(model, lambda: prefix.rest(model, [one.clone() for one in rows]), trained), alike
    ):
        return "the rest gives other values than the whole pass"
    return ""


def _passed(model: nn.Module, run: Callable[[], Any], trained: list[nn.Parameter]) -> list[Tensor | None]:
    """Give the outputs of a pass, what it left in the buffers, and the gradients of a loss of all outputs."""
    with state_kept(model):
        torch.default_generator.manual_seed(0)
        found = tensors(run())
        left = [one.detach().clone() for one in model.buffers()]
        ends = [one for one in found if one.requires_grad and one.is_floating_point()]
        if not ends or not trained:
            return [*[one.detach() for one in found], *left]
        loss = torch.stack([(one.float() * _weights(one)).sum() for one in ends]).sum()
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        return [*[one.detach() for one in found], *left, *gradients]


def _weights(one: Tensor) -> Tensor:
    """Give a weight to each number of an output, so that no two of them can stand for each other."""
    return torch.linspace(0.5, 1.5, one.numel(), device=one.device).reshape(one.shape)


def _equal(one: list[Tensor | None], other: list[Tensor | None], alike: Alike) -> bool:
    return len(one) == len(other) and all(_pair(a, b, alike) for a, b in zip(one, other, strict=True))


def _pair(one: Tensor | None, other: Tensor | None, alike: Alike) -> bool:
    if one is None or other is None:
        return one is other
    return alike(one, other)


_FAR = "depends on the other samples of its batch"
_NEAR = "has other last bits elsewhere in a batch"


def uneven(prefix: Prefix, inputs: Any, sizes: Iterable[int], alike: Alike) -> tuple[str, frozenset[int]]:
    """Compute the same samples in another place, among others, and in batches of other sizes.

    Returns:
        why nothing can be kept, if so; and the sizes of batches whose rows differ from those of the largest.
    """
    count = count_of(inputs)
    wanted = set(sizes) or {count}
    largest = max(wanted)
    order = [row % count for row in range(largest)]
    base = prefix.rows(picked(inputs, order))
    for turned in (order[::-1], [order[(2 * row + 1) % largest] for row in range(largest)]):
        again = _rows(prefix, inputs, turned)
        places = [order.index(row) for row in turned]
        if again is not None and not _rows_alike([one[places] for one in base], again, alike):
            far = not _rows_alike([one[places] for one in base], again, close)
            what = (
                "depends on the other samples of its batch" if far else "has other last bits elsewhere in a batch"
            )
            return f"what the frozen part gives for a sample {what}", frozenset()
    return "", frozenset(
        size for size in wanted - {largest} if not _holds(prefix, inputs, order, base, size, alike)
    )


def _holds(prefix: Prefix, inputs: Any, order: list[int], base: list[Tensor], size: int, alike: Alike) -> bool:
    """Tell whether smaller batches give the same rows as the largest."""
    for first in (len(order) - size, 0):
        places = list(range(first, first + size))
        less = _rows(prefix, inputs, [order[place] for place in places])
        if less is not None:
            return _rows_alike([one[places] for one in base], less, alike)
    return False


def _rows(prefix: Prefix, inputs: Any, order: list[int]) -> list[Tensor] | None:
    """Compute the rows of a batch; None where the pass goes another way for these samples."""
    try:
        return prefix.rows(picked(inputs, order))
    except Drifted:
        return None


def _rows_alike(one: list[Tensor], other: list[Tensor], alike: Alike) -> bool:
    return all(map(alike, one, other))
