"""The filters of the first convolution, as pictures of what each looks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from torchgraft.errors import SelectionError
from torchgraft.select import modules

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["Filters", "first_filters"]


@dataclass(frozen=True)
class Filters:
    """The filters of a convolution, the largest first.

    Attributes:
        name: path of the layer.
        kind: its class.
        weights: `[K, C, H, W]`.
        filters: the number of each among all filters.
        sizes: the norm of each.
        of: how many the layer has.
    """

    name: str
    kind: str
    weights: Tensor
    filters: tuple[int, ...]
    sizes: tuple[float, ...]
    of: int


def first_filters(graft: Graft, at: str | None = None, *, top: int = 64) -> Filters:
    """Give the filters of the first convolution, or of the one that is named, those of the largest norm first.

    Args:
        graft: the model; nothing of it is run.
        at: a selector of one or more layers, of which the first convolution is taken.
        top: how many filters.

    Raises:
        SelectionError: there is no convolution of images.
    """
    paths = modules(graft.module, at or "**", roles=graft.roles)
    inside = [
        (joined, one)
        for path in paths
        for joined, one in graft.module.get_submodule(path).named_modules(prefix=path)
        if isinstance(one, nn.Conv2d)
    ]
    if not inside:
        raise SelectionError(
            "there is no convolution whose filters could be drawn",
            where=at or graft.name,
            hint="name one of nn.Conv2d, or draw maps of it: --kind maps",
        )
    name, layer = inside[0]
    weight = layer.weight.detach().float().cpu()
    sizes = weight.flatten(1).norm(dim=1)
    order = sizes.argsort(descending=True, stable=True)[:top]
    return Filters(
        name, type(layer).__name__, weight[order], tuple(order.tolist()), tuple(sizes[order].tolist()), len(weight)
    )
