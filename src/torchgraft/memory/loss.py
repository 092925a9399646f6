"""Which loss a step is counted with: what the recipe's head or the user asks for, or what the outputs suggest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.edits.head import tasks
from torchgraft.probes.fitting import fitted
from torchgraft.probes.loss import loss_by, named_outputs
from torchgraft.trace.tree import mapped, tensors

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["Judge"]


@dataclass
class Judge:
    """Gives the loss of an output.

    Attributes:
        tasks: of the recipe's head, by the names of the outputs.
        smoothing: of the classes.
        loss: the user's own, `loss(output)`, or `loss(output, targets)` where there are some.
        targets: an example of the targets, of `batch` samples.
        words: which loss was taken, once there was an output.
        made: the targets that were made for the last output.
    """

    tasks: Mapping[str, str]
    smoothing: float = 0.0
    loss: Callable[..., Tensor] | None = None
    targets: Any = None
    batch: int = 1
    words: str = ""
    made: Any = None

    @classmethod
    def of(cls, graft: Graft, smoothing: float, loss: Any = None, targets: Any = None) -> Judge:
        """Take what the recipe says of its head."""
        return cls(tasks(graft.recipe.edits), smoothing, loss, targets, graft.trace(train=True).batch)

    def __call__(self, output: Any, inputs: Any) -> Tensor:
        """Give the loss of an output; its targets stand in `made`.

        Args:
            output: what the model gave.
            inputs: what it was given.
        """
        if self.loss is not None:
            return self._users(output, inputs)
        if self.tasks:
            self.words = "the loss of the head's tasks"
            return self._of_tasks(output, self.tasks)
        found = fitted(output, inputs, _zeros, smoothing=self.smoothing)
        self.words, self.made = found.words, found.targets
        return found.value

    def _users(self, output: Any, inputs: Any) -> Tensor:
        self.words = "the loss that was given"
        assert self.loss is not None
        if self.targets is None:
            return self.loss(output)
        count = next((int(one.shape[0]) for one in tensors(inputs) if one.dim()), 1)
        self.made = mapped(lambda one: _like(one, self.batch, count), self.targets)
        return self.loss(output, self.made)

    def _of_tasks(self, output: Any, asked: Mapping[str, str]) -> Tensor:
        main = named_outputs(output, asked)[0]
        if "" in asked:
            self.made = _targets(asked[""], main)
        else:
            self.made = {name: _targets(task, main[name]) for name, task in asked.items()}
        return loss_by(asked, smoothing=self.smoothing)(output, self.made)


def _zeros(number: int, like: Tensor, count: int) -> Tensor:
    return torch.zeros_like(like, dtype=torch.long)


def _targets(task: str, scores: Tensor) -> Tensor:
    if task == "classes":
        return scores.new_zeros((scores.shape[0], *scores.shape[2:]), dtype=torch.long)
    return scores.new_zeros(scores.shape, dtype=torch.float32)


def _like(one: Tensor, batch: int, count: int) -> Tensor:
    rows = count if one.dim() and one.shape[0] == batch else None
    return torch.zeros((rows, *one.shape[1:]) if rows is not None else one.shape, dtype=one.dtype)
