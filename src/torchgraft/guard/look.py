"""A look at a training that runs: what the rules say of its model, its optimizer and its last two steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn

from torchgraft.guard.gradients import Reading, trained
from torchgraft.probes.live import Live
from torchgraft.probes.records import Gradient
from torchgraft.probes.sets import sets
from torchgraft.probes.step import Step
from torchgraft.rules.finding import Finding
from torchgraft.rules.rule import Evidence, rules

__all__ = ["look", "moved", "named_norms", "told", "versions"]

_SETS = (
    "P003", "P010", "P011", "P012", "P013", "P014", "P015", "P016", "P018", "P020", "P021", "P022", "P025", "P027",
    "P028", "P032", "P034", "P037",
)  # fmt: skip
"""Rules that a model and an optimizer answer without a pass."""

_STEPS = ("T008", "T021")
"""Rules that two steps answer."""

_FROZEN = frozenset({"P013", "P018", "P020", "P037"})
"""Rules about what is frozen: with several optimizers, as a GAN has, what rests for a step is another's."""


def look(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None,
    step: int,
    *,
    now: Mapping[str, float | None] | None = None,
    earlier: Mapping[str, float | None] | None = None,
    kept: bool = False,
) -> tuple[Finding, ...]:
    """Judge a training as it stands; notes are left out.

    Right before the optimizer moves is the best moment: the modes are those of the forward pass. It takes about
    half a millisecond for a small network, so it is for the first two steps, and now and then.

    Args:
        model: what is trained.
        optimizer: what trains it, or several.
        step: the number of the step, from 1.
        now: the norms of the gradients by name, as `named_norms` gives them.
        earlier: the same of the step before; with both, parameters without a gradient and dead ones are told.
        kept: whether the loop keeps frozen parts still by itself.
    """
    from dataclasses import replace

    several = isinstance(optimizer, (list, tuple)) and len(optimizer) > 1
    codes = [code for code in (*_SETS, *_STEPS) if not (several and code in _FROZEN)]
    live = Live(step, norms=now or {}, earlier=earlier or {})
    seen = replace(sets(model, optimizer), kept=kept)
    first = Evidence(model, (), sets=seen, live=live, step=_step(model, live), name=type(model).__name__)
    return tuple(one for one in _judged(first, codes) if one.severity != "note")


def told(model: nn.Module, live: Live, *, codes: Collection[str]) -> tuple[Finding, ...]:
    """Give what some rules say of one step."""
    return tuple(_judged(Evidence(model, (), live=live, name=type(model).__name__), codes))


def _judged(evidence: Evidence, codes: Collection[str]) -> list[Finding]:
    known = rules()
    found = [finding for code in codes for finding in known[code]().findings(evidence)]
    order = ("error", "warning", "note")
    return sorted(dict.fromkeys(found), key=lambda one: order.index(one.severity))


def _step(model: nn.Module, live: Live) -> Step | None:
    """Write two real steps down as a dry one, for the rules of that."""
    if not live.earlier:
        return None
    sizes = {name: one.dim() > 1 for name, one in model.named_parameters()}
    both = [(name, live.earlier.get(name), norm) for name, norm in live.norms.items()]
    return Step(gradients=tuple(Gradient(name, old, new, sizes.get(name, False)) for name, old, new in both))


def named_norms(
    model: nn.Module, reading: Reading, *, among: Collection[torch.Tensor] | None = None
) -> dict[str, float | None]:
    """Give the norm of the gradient of each trainable parameter by its name; None where it has none.

    Args:
        model: whose they are.
        reading: of their gradients.
        among: what was read; all parameters where it is left out.
    """
    read = {id(one): value for one, value in zip(reading.parameters, reading.values(), strict=True)}
    asked = None if among is None else {id(one) for one in among}
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    return {name: read.get(id(one)) for name, one in named if asked is None or id(one) in asked}


def versions(optimizers: Iterable[torch.optim.Optimizer]) -> dict[nn.Parameter, int]:
    """Note how often each frozen parameter of some optimizers was written to; no value is read."""
    held = {one for optimizer in optimizers for one in trained(optimizer) if not one.requires_grad}
    return {one: one._version for one in held}


def moved(model: nn.Module, before: Mapping[nn.Parameter, int], step: int) -> tuple[Finding, ...]:
    """Tell of frozen parameters that a step moved.

    Args:
        model: whose they are.
        before: `versions` right before the step.
        step: its number.
    """
    written = {id(one) for one, version in before.items() if one._version != version}
    names = tuple(name for name, one in model.named_parameters() if id(one) in written)
    return told(model, Live(step, moved=names), codes=("P036",)) if names else ()
