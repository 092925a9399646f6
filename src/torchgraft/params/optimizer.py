"""A saved optimizer state, brought to the parameters that an optimizer holds now, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import TrainError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Carried", "carry_state"]


@dataclass(frozen=True)
class Carried:
    """What became of a saved optimizer state.

    Attributes:
        kept: names whose state was taken over.
        fresh: names of the optimizer that start with no state.
        left: saved names that the optimizer does not hold, or at another size.
    """

    kept: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def carry_state(
    saved: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    *,
    trained: list[str] | None = None,
) -> Carried:
    """Take over the state of every parameter that a saved optimizer state and an optimizer share, by name.

    `optimizer.load_state_dict` goes by position: after unfreezing, or with another head, it refuses, or it gives
    one layer the momentum of another. Rates and other settings stay those of `optimizer`.

    Args:
        saved: what `optimizer.state_dict()` gave. It knows its names where the optimizer was made of
            `model.named_parameters()` or of `g.groups(…)`.
        optimizer: what will train on.
        model: whose parameters it holds.
        trained: the names that the saved state stands for, in its order, where it does not know them.

    Raises:
        TrainError: it does not know its names, and `trained` does not say them.
    """
    import torch

    ours = {id(one): name for name, one in model.named_parameters()}
    state = {
        name: saved["state"][number]
        for name, number in _numbers(saved, trained).items()
        if number in saved["state"]
    }
    kept, fresh = [], []
    for parameter in (one for group in optimizer.param_groups for one in group["params"]):
        name = ours.get(id(parameter), "")
        if name in state and _fits(state[name], parameter):
            optimizer.state[parameter] = {
                key: value.clone().to(parameter.device) if isinstance(value, torch.Tensor) else value
                for key, value in state[name].items()
            }
            kept.append(name)
        else:
            fresh.append(name)
    return Carried(tuple(kept), tuple(fresh), tuple(name for name in state if name not in set(kept)))


def _numbers(saved: Mapping[str, Any], trained: list[str] | None) -> dict[str, int]:
    """Give the number of each name in a saved state."""
    groups = saved["param_groups"]
    numbers = [number for group in groups for number in group["params"]]
    named = [name for group in groups for name in group.get("param_names", group.get("names", ()))]
    names = named if trained is None else trained
    if len(names) != len(numbers):
        said = f"{len(numbers)} parameters and {len(names)} names" if names else "parameters by number alone"
        raise TrainError(
            f"the saved optimizer state holds {said}",
            where="carry_state",
            hint="say which they were: trained=[name for name, p in model.named_parameters() if …]; "
            "an optimizer of model.named_parameters() or g.groups(…) keeps the names",
        )
    return dict(zip(names, numbers, strict=True))


def _fits(state: Mapping[str, Any], parameter: torch.Tensor) -> bool:
    """Tell whether every tensor of a state with values for each element has the parameter's size."""
    sized = [
        one for key, one in state.items() if key != "step" and getattr(one, "dim", lambda: 0)() == parameter.dim()
    ]
    return all(one.shape == parameter.shape for one in sized)
