"""Freeze and unfreeze any model, by selectors, in a loop of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torchgraft.edits.freeze import Freeze
from torchgraft.edits.unfreeze import Unfreeze
from torchgraft.graft import Graft
from torchgraft.guard.names import bare, bare_optimizer
from torchgraft.loading import load

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["freeze", "unfreeze"]

_Selectors = str | Iterable[str]


def freeze(
    model: nn.Module | Graft,
    at: _Selectors = (),
    *,
    all_but: _Selectors = (),
    optimizer: torch.optim.Optimizer | None = None,
    input: Any = None,
    **how: Any,
) -> tuple[str, ...]:
    """Freeze parameters of a model; `torchgraft.freeze(model, all_but="fc")`.

    BatchNorm and dropout of a frozen part go on in training mode unless the loop keeps them still:
    `train_mode(model)` instead of `model.train()`, or `still(model)` once for a trainer of others.

    Args:
        model: any module, wrapped by DDP, Fabric or torch.compile or not, or a graft.
        at: selectors of what is frozen.
        all_but: instead: selectors of what is not; it can be trained afterwards, whatever it was.
        optimizer: what trains the model already: frozen parameters leave their group with their state, so that
            momentum and decay can't move them; those that `all_but` frees come in.
        input: the shape of one input without the batch, or an example: the roles `head` and `stem` are found by a
            trace, where the model has no module of that name.
        how: the other ways of `g.freeze`: `depth`, `stages`, `before`, `still`.

    Returns:
        the names of all parameters that are frozen now.

    Raises:
        SelectionError: a selector matches nothing.
        SourceError: a role is asked for, and no input is known to find it.
        RecipeError: nothing, or two ways at once, say what is frozen.
    """
    graft = _graft(model, input)
    given = {"at": _several(at), "all_but": _several(all_but), **how}
    graft.apply(Freeze.of(**{k: v for k, v in given.items() if v != ()}), optimizer=_bare(optimizer))
    return tuple(name for name, one in graft.module.named_parameters() if not one.requires_grad)


def unfreeze(
    model: nn.Module | Graft,
    at: _Selectors = "**",
    *,
    optimizer: torch.optim.Optimizer | None = None,
    input: Any = None,
    **how: Any,
) -> tuple[str, ...]:
    """Let training change parameters again.

    Args:
        model: as for `freeze`.
        at: selectors of what is trained.
        optimizer: what trains the model already: parameters that it does not hold come into the group of their
            neighbours.
        input: as for `freeze`.
        how: `moving`, as `g.unfreeze` has it.

    Returns:
        the names of all parameters that can be trained now.

    Raises:
        SelectionError: a selector matches nothing.
        SourceError: a role is asked for, and no input is known to find it.
    """
    graft = _graft(model, input)
    graft.apply(Unfreeze.of(at=_several(at), **how), optimizer=_bare(optimizer))
    return tuple(name for name, one in graft.module.named_parameters() if one.requires_grad)


def _graft(model: nn.Module | Graft, given: Any) -> Graft:
    return model if isinstance(model, Graft) else load(bare(model), input=given)


def _several(selectors: _Selectors) -> tuple[str, ...]:
    return (selectors,) if isinstance(selectors, str) else tuple(selectors)


def _bare(optimizer: torch.optim.Optimizer | None) -> torch.optim.Optimizer | None:
    return None if optimizer is None else bare_optimizer(optimizer)
