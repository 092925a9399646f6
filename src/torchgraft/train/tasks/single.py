"""What tasks of one output have in common: auxiliary heads count with their weight, the main one is judged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchgraft.probes.loss import AUXILIARY
from torchgraft.train.task import Task
from torchgraft.train.tasks.outputs import with_auxiliary

__all__ = ["Given", "Single"]

Given = Callable[[Tensor, Any], Tensor]
"""A loss that was asked for instead of the task's own: `loss(scores, targets)` gives a scalar."""


class Single(Task):
    """A task of one output.

    Attributes:
        given: takes the place of the task's own loss.
    """

    given: Given | None = None

    @abstractmethod
    def one(self, scores: Tensor, targets: Any) -> Tensor:
        """Give the task's own loss of one tensor."""

    def loss(self, output: Any, targets: Any) -> Tensor:
        """Give the loss of the main output, and of the auxiliary ones with their weight (Szegedy et al., 2015)."""
        one = self.given or self.one
        if isinstance(output, Tensor):
            return one(output, targets)
        main, others = with_auxiliary(output)
        loss = one(main, targets)
        for other in others:
            loss = loss + AUXILIARY * one(other, targets)
        return loss
