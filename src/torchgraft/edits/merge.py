"""Merge: adapters folded into the layers that they adapt."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.schema import Places
from torchgraft.select import modules
from torchgraft.surgery.journal import inside
from torchgraft.surgery.tied import embeddings_tied
from torchgraft.surgery.tuners import is_adapter

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Merge"]


class Merge(Edit):
    """Make plain layers of adapted ones: the weight becomes what base and adapter compute together.

    The weights are new tensors, everything that an adapter does not change is held on, and the keys are the base's
    again. Parameters that were frozen stay frozen.

    Attributes:
        at: where adapters are merged; all of them when left out.
    """

    at: Places = ("**",)

    def apply(self, surgery: Surgery) -> Merge:
        """Merge a copy of each adapter, and put its layer in the place.

        Raises:
            SelectionError: a selector matches nothing.
            EditError: there is no adapter, or one can't be merged.
        """
        chosen = modules(surgery.model, self.at, roles=surgery.roles)
        found = {one: path for path, one in inside(surgery.model, chosen).items() if is_adapter(one)}
        inner = {part for one in found for part in one.modules() if part is not one}
        pairs = {one: _merged(one, path) for one, path in found.items() if one not in inner}
        if not pairs:
            raise EditError(
                f"there is no adapter at {', '.join(self.at)}",
                where=", ".join(self.at),
                hint="adapter(…) puts one in; merge() takes all of them",
            )
        surgery.trade(pairs)
        embeddings_tied(surgery)
        return self

    def sentence(self) -> str:
        """Say what is merged."""
        return "adapters are merged" + (f" at {', '.join(self.at)}" if self.at != ("**",) else "")


def _merged(adapter: Any, path: str) -> nn.Module:
    """Give the layer of an adapter with merged weights; tensors that the adapter does not change are the old ones.

    Raises:
        EditError: the merged weights are not finite, or this adapter can't be merged.
    """
    import torch

    base = adapter.get_base_layer()
    double = copy.deepcopy(adapter)
    try:
        with torch.no_grad():
            double.merge(safe_merge=True)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        raise EditError(
            f"this adapter can't be merged: {str(error).splitlines()[0]}",
            where=path,
            hint="look at its weights: they may have become NaN in training",
        ) from error
    merged: nn.Module = double.get_base_layer()
    theirs = dict(base.named_modules(remove_duplicate=False))
    for name, module in merged.named_modules(remove_duplicate=False):
        for table in ("_parameters", "_buffers"):
            for key, tensor in getattr(theirs[name], table).items():
                new = getattr(module, table)[key]
                if tensor is not None and torch.equal(new, tensor):
                    getattr(module, table)[key] = tensor
                elif tensor is not None:
                    new.requires_grad_(tensor.requires_grad)
    return merged
