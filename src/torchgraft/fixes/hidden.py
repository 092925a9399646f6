"""Hidden: layers in a plain list or dict, which no optimizer and no file gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.edits.register import Register, registrable
from torchgraft.fixes.cause import Cause, Fault, Proposal

__all__ = ["Hidden"]


class Hidden(Cause):
    """A module keeps layers in attributes that torch does not look into."""

    warnings: ClassVar[frozenset[str]] = frozenset({"P003"})

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Register them."""
        if fault.finding is None or fault.finding.code not in self.warnings or fault.path not in fault.modules:
            return
        names = registrable(fault.modules[fault.path])
        if names:
            yield Proposal(
                "register", ((Register(at=fault.path, names=names),),), "the layers are trained and saved"
            )
