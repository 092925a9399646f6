"""What the plan says of rates: the groups of the optimizer, and what is unfrozen when."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torchgraft.errors import TrainError
from torchgraft.params.groups import Groups
from torchgraft.params.unfreezing import Step, admit, by_layers, only, steps_of, unlock
from torchgraft.select import parameters
from torchgraft.trace.order import order
from torchgraft.train.optimise import optimizer_class

if TYPE_CHECKING:
    import torch

    from torchgraft.graft import Graft
    from torchgraft.recipe import TrainPlan

__all__ = ["check_reached", "check_unfreezing", "groups_of", "starting", "unfreezing", "unfrozen"]


def groups_of(graft: Graft, plan: TrainPlan, steps: tuple[Step, ...] = ()) -> Groups:
    """Sort what can be trained now into groups, as the plan says.

    The rate and the weight decay of the optimizer are written out, its own defaults too, so that what decay spares
    is spared from those.

    Args:
        graft: what is trained.
        plan: says the groups.
        steps: what was unfrozen on the way, at a rate of its own.
    """
    settings: dict[str | tuple[str, ...], Mapping[str, Any]] = {
        group.at: group.settings() for group in plan.groups
    }
    settings |= {step.names: {"lr": step.lr} for step in steps if step.lr is not None}
    return graft.groups(settings, layer_decay=plan.layer_decay, no_decay=plan.no_decay, **_own(plan))


def _own(plan: TrainPlan) -> dict[str, Any]:
    """Give the rate and the decay that the optimizer has by itself."""
    known = inspect.signature(optimizer_class(plan.optimizer.name)).parameters
    defaults = {name: known[name].default for name in ("lr", "weight_decay") if name in known}
    return {name: plan.optimizer.settings.get(name, value) for name, value in defaults.items()}


def unfreezing(graft: Graft, plan: TrainPlan) -> tuple[Step, ...]:
    """Find out what the plan unfreezes at the start of which epoch.

    Raises:
        SelectionError: a selector matches nothing.
        TrainError: a step unfreezes nothing, or its epoch is never reached.
    """
    check_unfreezing(plan)
    if not plan.unfreeze:
        return ()
    first = plan.unfreeze[0]
    if first.every is not None:
        known = parameters(graft.module, first.from_, roles=graft.roles)
        layers = order(graft.trace(), graft.module)
        return tuple(
            Step(epoch, names) for epoch, names in by_layers(layers, every=first.every, start=tuple(known)).items()
        )
    asked = {one.epoch: one for one in plan.unfreeze if one.epoch is not None}
    steps = steps_of(graft.module, {epoch: one.at for epoch, one in asked.items()}, roles=graft.roles)
    return tuple(replace(step, lr=asked[step.epoch].lr) for step in steps)


def check_unfreezing(plan: TrainPlan) -> None:
    """Refuse steps that can't be.

    Raises:
        TrainError: says which.
    """
    epochs = [one.epoch for one in plan.unfreeze]
    if len(epochs) > 1 and (None in epochs or len(set(epochs)) < len(epochs)):
        raise TrainError(
            "'every' stands alone" if None in epochs else "two steps name one epoch",
            where="train.unfreeze",
            hint="one {every: 1, from: head}, or one {epoch: …, at: […]} for each epoch",
        )
    if plan.steps is None:  # else the data say how many epochs there will be
        check_reached(plan, plan.epochs)


def check_reached(plan: TrainPlan, epochs: int) -> None:
    """Refuse to unfreeze something in an epoch that there will not be.

    Raises:
        TrainError: says which.
    """
    late = [one.epoch for one in plan.unfreeze if one.epoch is not None and one.epoch > epochs]
    if late:
        raise TrainError(
            f"epoch {late[0]} is never reached: the training has {epochs}",
            where="train.unfreeze",
            hint=f"name an earlier epoch, or train longer: {'epochs' if plan.steps is None else 'steps'}",
        )


@contextmanager
def starting(graft: Graft, plan: TrainPlan) -> Iterator[tuple[Step, ...]]:
    """Freeze what the plan unfreezes later on, and give the steps; at the end the flags are as they were.

    Raises:
        SelectionError, TrainError: see `unfreezing`.
    """
    steps = unfreezing(graft, plan)
    flags = [(one, one.requires_grad) for one in graft.module.parameters()]
    try:
        if steps and plan.unfreeze[0].every is not None:
            graft.module.requires_grad_(False)
            unlock(graft.module, tuple(parameters(graft.module, plan.unfreeze[0].from_, roles=graft.roles)))
        yield steps
    finally:
        for one, flag in flags:
            one.requires_grad_(flag)


def unfrozen(
    graft: Graft,
    plan: TrainPlan,
    steps: tuple[Step, ...],
    epoch: int,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
) -> bool:
    """Unfreeze what comes at the start of an epoch, and tell whether there was anything."""
    now = [step for step in steps if step.epoch == epoch]
    for step in now:
        unlock(graft.module, step.names)
        done = tuple(one for one in steps if one.epoch <= epoch)
        admit(optimizer, only(groups_of(graft, plan, done), step.names), schedule)
    return bool(now)
