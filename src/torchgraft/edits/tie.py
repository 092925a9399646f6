"""Tie: one parameter held in several places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.schema import Places
from torchgraft.surgery.tied import Slot, embeddings_tied, slot

if TYPE_CHECKING:
    from torchgraft.surgery.journal import Surgery

__all__ = ["Tie"]


class Tie(Edit):
    """Hold the parameter `to` in the places `at` as well, such as an embedding in the output layer.

    There is one tensor from then on: it is trained once, and every name in the state dict shows it (Press and
    Wolf, 2017). A transformers configuration's `tie_word_embeddings` follows.

    Attributes:
        at: names of the parameters that give way, such as `lm_head.weight`.
        to: the name of the one that stays, such as `embed.weight`.
    """

    at: Places
    to: str

    def apply(self, surgery: Surgery) -> Tie:
        """Move the references.

        Raises:
            SelectionError: there is no such parameter.
            EditError: the sizes, the dtypes or the devices differ, or there is nothing to tie.
        """
        source = slot(surgery.model, self.to)
        places = {path: slot(surgery.model, path) for path in self.at}
        for path, place in places.items():
            self._fits(path, place, source)
        for place in places.values():
            surgery.hold(place.module, place.name, source.tensor)
        embeddings_tied(surgery)
        return self

    def _fits(self, path: str, place: Slot, source: Slot) -> None:
        ours, theirs = place.tensor, source.tensor
        if ours is theirs:
            raise EditError(f"{path} and {self.to} are one parameter already", where=path, hint="leave it out")
        if ours.shape != theirs.shape:
            turned = ours.dim() == 2 and ours.shape == theirs.shape[::-1]
            raise EditError(
                f"{path} is {list(ours.shape)}, {self.to} is {list(theirs.shape)}"
                + (", its transpose: one tensor can't have both shapes" if turned else ""),
                where=path,
                hint="a layer that multiplies by the transpose holds none of its own: call "
                f"F.linear(x, {self.to}.T) in your forward"
                if turned
                else "resize one of them to the other's sizes first",
            )
        if (ours.dtype, ours.device) != (theirs.dtype, theirs.device):
            raise EditError(
                f"{path} is {ours.dtype} on {ours.device}, {self.to} is {theirs.dtype} on {theirs.device}",
                where=path,
                hint="bring the model to one dtype and device first",
            )

    def keys(self) -> Mapping[str, str]:
        """Say that the base has the values under the name of the one that stays."""
        return dict.fromkeys(self.at, self.to)

    def sentence(self) -> str:
        """Say what is one parameter now."""
        return f"{', '.join(self.at)} {'is' if len(self.at) == 1 else 'are'} tied to {self.to}"
