"""Watching a training: what a step shows before it moves anything, at the cost of one read of the gradients.

For any loop, torchgraft's own included: `read` and `clip` a step's gradients, `look` at model and optimizer now
and then, say by `cause` what is wrong with a step, and put back by `Statistics` what a spoilt batch did to norms.
"""

from __future__ import annotations

from torchgraft.guard.cause import cause
from torchgraft.guard.gradients import Reading, clip, read
from torchgraft.guard.look import look, moved, versions
from torchgraft.guard.names import bare, bare_optimizer
from torchgraft.guard.statistics import Statistics

__all__ = ["Reading", "Statistics", "bare", "bare_optimizer", "cause", "clip", "look", "moved", "read", "versions"]
