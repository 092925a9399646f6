"""Gradual unfreezing: parameters that an optimizer gets while training goes on, its state for the others kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import TrainError
from torchgraft.params.groups import Groups, Settings, check_groups, parameter_groups
from torchgraft.select import Roles, parameters

if TYPE_CHECKING:
    import torch
    from torch import nn

    from torchgraft.trace.order import Order

__all__ = ["Step", "admit", "by_layers", "gradually", "steps_of"]


@dataclass(frozen=True)
class Step:
    """What is unfrozen at the start of one epoch.

    Attributes:
        epoch: counted from 1.
        names: of the parameters.
        lr: their rate; as the groups say, where it is None.
    """

    epoch: int
    names: tuple[str, ...]
    lr: float | None = None


def gradually(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: Mapping[int, str | Iterable[str] | Mapping[str, Any]],
    *,
    schedule: Any = None,
    roles: Roles | None = None,
) -> Callable[[int], tuple[str, ...]]:
    """Unfreeze a model step by step in a loop of your own.

    Args:
        model: what is trained. What the steps name is frozen now.
        optimizer: it gets the new parameters in groups of their own, with its own settings; norms and biases are
            spared from weight decay.
        steps: epoch, from 1 -> selectors, or `{"at": selectors, "lr": rate, …}` with settings of the new groups.
        schedule: the schedule of the rates, which goes on for the new groups too.
        roles: selector names that stand for paths, such as `g.roles`.

    Returns:
        a function to call with the number of each epoch, before `train_mode(model)` or `model.train()`; it gives
        the names of what it unfroze. Called with a later epoch first, it makes up for the steps before: to resume
        after epoch 4, call it with 4, load the states of optimizer and schedule, and go on with 5.

    Raises:
        SelectionError: a selector matches nothing.
        TrainError: a step unfreezes nothing.
    """
    wanted = {epoch: _settings(given) for epoch, given in steps.items()}
    waiting = list(steps_of(model, {epoch: at for epoch, (at, _) in wanted.items()}, roles=roles))

    def start(epoch: int) -> tuple[str, ...]:
        done: list[str] = []
        while waiting and waiting[0].epoch <= epoch:
            step = waiting.pop(0)
            unlock(model, step.names)
            settings: Settings = {step.names: wanted[step.epoch][1]}
            groups = parameter_groups(model, settings, _defaults(optimizer), roles=roles)
            admit(optimizer, only(groups, step.names), schedule)
            check_groups(optimizer.param_groups, model)
            done += step.names
        return tuple(done)

    return start


def _settings(given: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    if isinstance(given, Mapping):
        settings = dict(given)
        at = settings.pop("at")
        return _several(at), settings
    return _several(given), {}


def _several(at: str | Iterable[str]) -> tuple[str, ...]:
    return (at,) if isinstance(at, str) else tuple(at)


def _defaults(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {name: optimizer.defaults[name] for name in ("lr", "weight_decay") if name in optimizer.defaults}


def by_layers(order: Order, *, every: int = 1, start: Collection[str] = ()) -> dict[int, tuple[str, ...]]:
    """Unfreeze layer by layer from the output to the input (Howard and Ruder, 2018).

    Args:
        order: of the model's layers.
        every: epochs from one layer to the next.
        start: names that are trained from the first epoch; the last layer where there are none.

    Returns:
        epoch -> names of the parameters that are unfrozen at its start.
    """
    known = set(start or order.layers[-1].names)
    waiting = [tuple(name for name in layer.names if name not in known) for layer in reversed(order.layers)]
    layers = [names for names in waiting if names]
    return {1 + every * number: names for number, names in enumerate(layers, 1)}


def steps_of(
    model: nn.Module, asked: Mapping[int, Sequence[str]], *, roles: Roles | None = None
) -> tuple[Step, ...]:
    """Find out which parameters each step unfreezes: those it selects that are frozen until then.

    Raises:
        SelectionError: a selector matches nothing.
        TrainError: a step unfreezes nothing.
    """
    known = dict(model.named_parameters(remove_duplicate=False))
    free = {id(one) for one in known.values() if one.requires_grad or not one.is_floating_point()}
    steps = []
    for epoch in sorted(asked):
        chosen = parameters(model, asked[epoch], roles=roles)
        names = []
        for name in chosen:
            if id(known[name]) not in free:
                free.add(id(known[name]))
                names.append(name)
        if not names:
            text = ", ".join(asked[epoch])
            raise TrainError(
                f"{text} is trainable before epoch {epoch} already",
                where="unfreeze",
                hint="freeze it first: freeze: {all_but: head}",
            )
        steps.append(Step(epoch, tuple(names)))
    return tuple(steps)


def unlock(model: nn.Module, names: Collection[str]) -> None:
    """Let training change some parameters."""
    wanted = frozenset(names)
    for name, one in model.named_parameters(remove_duplicate=False):
        if name in wanted:
            one.requires_grad_(True)


def only(groups: Groups, names: Collection[str]) -> list[dict[str, Any]]:
    """Give the groups of some parameters alone."""
    wanted = frozenset(names)
    kept = []
    for group in groups:
        pairs = [(n, one) for n, one in zip(group["names"], group["params"], strict=True) if n in wanted]
        if pairs:
            kept.append({**group, "names": [name for name, _ in pairs], "params": [one for _, one in pairs]})
    return kept


_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
"""What a schedule keeps of a group's rate, in its group."""


def admit(optimizer: torch.optim.Optimizer, groups: Iterable[Mapping[str, Any]], schedule: Any = None) -> None:
    """Give an optimizer further groups in the middle of training; what it knows of the others stays.

    Args:
        optimizer: what trains.
        groups: with the rates that they would have at the height of the schedule.
        schedule: it goes on for the new groups as for the first one: what that has lost of its rate by now, they
            have lost too.
    """
    known = optimizer.param_groups
    place = next((number for number, one in enumerate(known) if _height(one) > 0), 0)
    like = known[place]
    tops = [one.max_lrs[place] for one in _schedules(schedule) if isinstance(getattr(one, "max_lrs", None), list)]
    height = float(tops[0]) if tops else _height(like)
    for group in groups:
        made = {**{k: v for k, v in like.items() if k not in _OWN and k not in optimizer.defaults}, **group}
        rate = float(made.get("lr", optimizer.defaults["lr"]))
        if height > 0:
            made |= {name: like[name] * rate / height for name in _RATES if name in like}
        if "param_names" in like:
            made["params"] = list(zip(made["names"], made["params"], strict=True))
        optimizer.add_param_group(made)
        for one in _schedules(schedule):
            _extend(one, optimizer.param_groups[-1])


_OWN = ("params", "names", "param_names")


def _height(group: Mapping[str, Any]) -> float:
    """Give the rate of a group at the height of its schedule."""
    return float(group.get("max_lr", group.get("initial_lr", group["lr"])))


def _schedules(schedule: Any) -> list[Any]:
    """Give a schedule, and those that it is made of."""
    if schedule is None:
        return []
    return [schedule, *(inner for one in getattr(schedule, "_schedulers", ()) for inner in _schedules(one))]


_LISTS = ("lr_lambdas", "min_lrs", "lr_min", "base_momentums", "max_momentums")
"""What schedules of torch keep in a list with one entry a group, the same for all of them mostly."""


def _extend(schedule: Any, group: Mapping[str, Any]) -> None:
    """Let a schedule of torch know a new group, wherever it keeps a list with one entry a group."""
    first = float(group.get("initial_lr", group["lr"]))
    known = getattr(schedule, "base_lrs", None) or [first]
    share = first / known[0] if known[0] else 1.0
    if hasattr(schedule, "base_lrs"):
        schedule.base_lrs.append(first)
    for name in _LISTS:
        held = getattr(schedule, name, None)
        if isinstance(held, list) and held:
            held.append(held[0])
    if isinstance(getattr(schedule, "max_lrs", None), list):  # of CyclicLR, whose base_lrs are the lowest
        schedule.max_lrs.append(schedule.max_lrs[0] * share)
    if isinstance(getattr(schedule, "_last_lr", None), list) and schedule._last_lr:
        schedule._last_lr.append(group["lr"])
