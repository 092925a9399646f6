"""Several outputs by name, each with a task of its own: their losses add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from torchgraft.probes.loss import AUXILIARY, named_outputs
from torchgraft.train.task import LOSS, Kind, Meter, Task
from torchgraft.train.world import World

__all__ = ["Named"]


class Named(Task):
    """Several outputs by name; the targets are a dict with the same names.

    States are judged by the loss: figures of several kinds have no sum.
    """

    kind: Kind = "several"
    metric = LOSS
    higher = False

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = dict(tasks)
        every = [f"{name}.{one}" for name, task in tasks.items() for one in task.names if one != LOSS]
        self.names = (LOSS, *every)
        self.kinds = dict.fromkeys(tasks, "")  # `named_outputs` asks for names alone

    def loss(self, output: Any, targets: Any) -> Tensor:
        """Give the sum of the losses by name; what auxiliary heads give is added with its weight."""
        main, *others = [self._sum(one, targets) for one in named_outputs(output, self.kinds)]
        return main + AUXILIARY * sum(others[1:], others[0]) if others else main

    def meter(self, *, train: bool = False) -> Meter:
        """Gather the figures of each output under its name."""
        return _Meters({name: task.meter(train=train) for name, task in self.tasks.items()}, self.kinds)

    def answers(self, output: Any) -> dict[str, Any]:
        """Give the answers of each output under its name."""
        main = named_outputs(output, self.kinds)[0]
        return {name: task.answers(main[name]) for name, task in self.tasks.items()}

    def _sum(self, output: Mapping[str, Any], targets: Any) -> Tensor:
        if not isinstance(targets, Mapping) or self.tasks.keys() - targets.keys():
            raise RuntimeError(
                f"the model gives a dict, so the targets are a dict too, with {', '.join(self.tasks)}"
            )
        parts = [task.loss(output[name], targets[name]) for name, task in self.tasks.items()]
        return sum(parts[1:], parts[0])


class _Meters(Meter):
    def __init__(self, meters: Mapping[str, Meter], kinds: Mapping[str, str]) -> None:
        self.meters, self.kinds = meters, kinds

    def add(self, output: Any, targets: Any) -> None:
        main = named_outputs(output, self.kinds)[0]
        for name, meter in self.meters.items():
            meter.add(main[name], targets[name])

    def sums(self) -> dict[str, Tensor]:
        return {f"{name}.{key}": one for name, meter in self.meters.items() for key, one in meter.sums().items()}

    def gather(self, world: World) -> None:
        for meter in self.meters.values():
            meter.gather(world)

    def figures(self) -> dict[str, float]:
        return {
            f"{name}.{key}": one for name, meter in self.meters.items() for key, one in meter.figures().items()
        }
