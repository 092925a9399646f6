"""Training: a thin loop on torch's own engines, and what it leaves behind."""

from __future__ import annotations

from torchgraft.history import Epoch, Evaluation, History

__all__ = ["Epoch", "Evaluation", "History"]
