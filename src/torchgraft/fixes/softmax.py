"""Softmax: the model ends in one, and cross-entropy takes another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchgraft.edits.remove import Remove
from torchgraft.edits.rewire import Rewire
from torchgraft.fixes.cause import Cause, Fault, Proposal
from torchgraft.fixes.places import module_of

__all__ = ["Softmax"]


class Softmax(Cause):
    """The last operation is a softmax."""

    warnings: ClassVar[frozenset[str]] = frozenset({"H001"})

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Take it out."""
        if fault.finding is None or fault.finding.code not in self.warnings or fault.at is not None:
            return
        for output in fault.run.outputs:
            op = fault.run.maker(output)
            if op is None or op.name != "softmax" or op.path != fault.path:
                continue
            module = module_of(fault, op)
            same = [one for one in fault.run.ops[: op.index] if (one.path, one.name) == (op.path, "softmax")]
            gone = Rewire(at=op.path, operation="softmax", number=len(same), becomes="nothing")
            yield Proposal("remove", ((Remove(at=module) if module else gone,),), "the model gives raw scores")
