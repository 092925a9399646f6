"""Which layer each parameter belongs to, from the input to the output: what layer-wise decay of rates goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.trace.order import Order

__all__ = ["depths_of"]


def depths_of(model: nn.Module, order: Callable[[], Order]) -> Mapping[str, int]:
    """Number the layer of each parameter, 0 for what reads the input.

    A model of timm declares its layers (`group_matcher`), and these are taken, as timm's own
    `param_groups_layer_decay` takes them; any other model is numbered by the order of its pass.

    Args:
        model: whose parameters are numbered.
        order: gives the traced order; asked for only where the model declares none.
    """
    declared = getattr(model, "group_matcher", None)
    if declared is None:
        return order().depths
    from timm.models import group_parameters

    found: Mapping[str, int] = group_parameters(model, declared(coarse=False), reverse=True)
    last = max(found.values(), default=0)
    return {name: found.get(name, last) for name, _ in model.named_parameters()}
