"""Append: a new module at the end of a Sequential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.modulespec import ModuleSpec
from torchgraft.schema import Name
from torchgraft.surgery.build import build
from torchgraft.surgery.standing import is_sequence, place_in

if TYPE_CHECKING:
    from torchgraft.surgery.journal import Surgery

__all__ = ["Append"]


class Append(Edit):
    """Put a module at the end of the Sequential `at`."""

    at: str
    module: ModuleSpec
    name: Name | None = None

    def apply(self, surgery: Surgery) -> Append:
        """Build the module for what the Sequential gives, and put it last.

        Raises:
            EditError: `at` is not a Sequential.
        """
        sequence = surgery.module(self.at)
        if not is_sequence(sequence):
            raise EditError(
                f"{self.at} is a {type(sequence).__name__}, not a Sequential: it has no end to append to",
                where=self.at,
                hint=f"insert after it: insert(…, after='{self.at}')",
            )
        module, spec = build(self.module, surgery.look(False).gave(self.at), surgery, self.at)
        path = place_in(self.at, sequence, self.name, module, surgery)
        return self.model_copy(update={"module": spec, "name": path.rpartition(".")[2]})

    def sentence(self) -> str:
        """Say what stands where."""
        return f"{self.module} is appended to {self.at}" + (f" as {self.name}" if self.name else "")
