"""Replace: another module in an existing place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from torchgraft.edits.base import Edit
from torchgraft.modulespec import ModuleSpec
from torchgraft.surgery.build import build

if TYPE_CHECKING:
    from torchgraft.surgery.journal import Surgery

__all__ = ["Replace"]


class Replace(Edit):
    """Hold another module under the path `at`."""

    at: str
    with_: ModuleSpec = Field(alias="with")

    def apply(self, surgery: Surgery) -> Replace:
        """Build the new module for what the place was given, and move the reference."""
        surgery.module(self.at)
        module, spec = build(self.with_, surgery.look(False).given(self.at), surgery, self.at)
        surgery.put(self.at, module)
        return self.model_copy(update={"with_": spec})

    def sentence(self) -> str:
        """Say what stands where."""
        return f"{self.at} is replaced by {self.with_}"
