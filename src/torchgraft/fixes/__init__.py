"""Fixes where no edited place explains the fault: each file proposes edits for one kind of cause."""

from torchgraft.fixes.cause import Cause, Edits, Fault, Proposal, causes

__all__ = ["Cause", "Edits", "Fault", "Proposal", "causes"]
