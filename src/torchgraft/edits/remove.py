"""Remove: take a module out, and join what stood before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchgraft.edits.base import Edit
from torchgraft.edits.insert import is_sequence

if TYPE_CHECKING:
    from torchgraft.edits.surgery import Surgery

__all__ = ["Remove"]


class Remove(Edit):
    """Take the module `at` out: from a Sequential without renumbering, elsewhere an Identity takes its place."""

    at: str

    def apply(self, surgery: Surgery) -> Remove:
        """Drop the reference, or put an Identity where the parent's code calls the module by name."""
        from torch import nn

        parent, _ = surgery.parent(self.at)
        if is_sequence(parent):
            surgery.drop(self.at)
        else:
            surgery.put(self.at, nn.Identity())
            surgery.added.pop()
        return self

    def sentence(self) -> str:
        """Say what is gone."""
        return f"{self.at} is removed"
