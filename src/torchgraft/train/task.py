"""What a model is trained for: the loss of its outputs, and the figures that say how good they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torchgraft.history import Kind

if TYPE_CHECKING:
    from torchgraft.train.world import World

__all__ = ["LOSS", "Kind", "Meter", "Task"]

LOSS = "loss"
"""The figure that every task has, though no meter gathers it; less of it is better."""


class Meter(ABC):
    """Figures of many batches, gathered without waiting for the device."""

    @abstractmethod
    def add(self, output: Any, targets: Any) -> None:
        """Count one batch of outputs; nothing is read from the device."""

    @abstractmethod
    def sums(self) -> dict[str, Tensor]:
        """Give what was gathered as tensors that add up over batches and processes; they are live, not copies."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """Give the figures by name, such as `accuracy` (a share of 1); the first is what states are judged by."""

    def gather(self, world: World) -> None:
        """Let every process hold what all of them counted; each calls this once, before `figures`."""
        for one in self.sums().values():
            world.total(one)


class Task(ABC):
    """What the outputs of a model are for.

    Attributes:
        kind: `classes`, `labels`, `regression`, `mask`, or `several` by name.
        metric: the name of the figure that states are judged by.
        higher: whether more of it is better.
        names: of the figures that there are on validation samples, `loss` among them.
    """

    kind: Kind
    metric: str
    higher: bool = True
    names: tuple[str, ...] = (LOSS,)

    @abstractmethod
    def loss(self, output: Any, targets: Any) -> Tensor:
        """Give the mean loss of one batch, as a scalar, to be differentiated."""

    @abstractmethod
    def meter(self, *, train: bool = False) -> Meter:
        """Begin to gather figures; `train` asks for those alone that cost next to nothing."""

    @abstractmethod
    def answers(self, output: Any) -> dict[str, Any]:
        """Give what an output says, as plain lists with one entry a sample."""

    def judged(self, loss: float, figures: Mapping[str, float]) -> float:
        """Give the figure that a state is judged by, out of its loss and its figures."""
        return loss if self.metric == LOSS else figures[self.metric]
