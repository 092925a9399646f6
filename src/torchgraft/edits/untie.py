"""Untie: a parameter of its own where one was held in several places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.schema import Places
from torchgraft.surgery.tied import embeddings_tied, holders, slot

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Untie"]


class Untie(Edit):
    """Give the places `at` copies of the parameter that they share with others, in tensors of their own.

    Nothing is computed differently until they are trained. Places that are named together stay tied to one another
    where they were.

    Attributes:
        at: names of the parameters that leave, such as `lm_head.weight`.
    """

    at: Places

    def apply(self, surgery: Surgery) -> Untie:
        """Put a copy of the parameter into each place.

        Raises:
            SelectionError: there is no such parameter.
            EditError: nobody else holds it.
        """
        places = {path: slot(surgery.model, path) for path in self.at}
        leaving = set(places.values())
        copies: dict[int, nn.Parameter] = {}
        for path, place in places.items():
            if leaving.issuperset(holders(surgery.model, place.tensor)):
                raise EditError(
                    f"{path} is not tied: no other module holds it",
                    where=path,
                    hint="a module that is called several times shares all it has; replace it in one of its places"
                    if _is_shared(surgery, path)
                    else "leave it out",
                )
            if id(place.tensor) not in copies:
                copies[id(place.tensor)] = _copy(place.tensor)
        for place in places.values():
            surgery.hold(place.module, place.name, copies[id(place.tensor)])
        embeddings_tied(surgery)
        return self

    def sentence(self) -> str:
        """Say what stands for itself now."""
        return f"{', '.join(self.at)} {'is' if len(self.at) == 1 else 'are'} untied"


def _is_shared(surgery: Surgery, path: str) -> bool:
    module = surgery.module(path.rpartition(".")[0]) if "." in path else surgery.model
    return sum(one is module for _, one in surgery.model.named_modules(remove_duplicate=False)) > 1


def _copy(tensor: nn.Parameter) -> nn.Parameter:
    from torch import nn

    return nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
