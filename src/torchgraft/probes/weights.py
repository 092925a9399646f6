"""Weights: a state dict from anywhere, compared with a model's own: names, sizes, and what the values tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchgraft.errors import SourceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from torchgraft.weights.fit import Fit

__all__ = ["Match", "Values", "match"]


@dataclass(frozen=True)
class Values:
    """What the values of given weights tell.

    Attributes:
        compared: names of the model's matrices whose values were compared (vectors of fresh norms are alike in any
            two models, so they tell nothing).
        strange: those of them that have nothing in common with the given values: never loaded, or overwritten.
        moved: those that differ from the given values but resemble them: trained since.
        begun: names of vectors (of norms, and biases) that are all 0 or all 1, as they were made, where the given
            ones are not.
        own: names whose given tensor is the very memory of the model's.
        negative: given names of variances that are below zero.
        broken: given names with NaN or infinite values, and how many.
        zero: given names of matrices that are all zero.
        casts: own type and given type -> names, where they differ.
    """

    compared: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    broken: Mapping[str, int] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    casts: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Match:
    """How given weights fit a model.

    Attributes:
        fit: their places in the model; None where they can't be read.
        values: what their values tell.
        ties: names of one parameter of the model that the weights give different values for.
        untied: names that are one tensor in the weights (or its only copy) and two in the model.
        problem: why they can't be read.
        origin: where they come from.
        hint: what to do where they can't be read.
    """

    fit: Fit | None = None
    values: Values = field(default_factory=Values)
    ties: tuple[tuple[str, ...], ...] = ()
    untied: tuple[tuple[str, ...], ...] = ()
    problem: str = ""
    origin: str = ""
    hint: str = ""

    @property
    def held(self) -> bool:
        """Tell whether the model holds the given values already, as far as they were compared."""
        return bool(self.values.compared) and not self.values.strange


def match(model: nn.Module, weights: Any) -> Match:
    """Compare weights of any form with a model: a state dict, a whole checkpoint, or a file of either.

    Every value is read once, none is changed. What can't be read is recorded, not raised.
    """
    from torchgraft.weights.fit import fit
    from torchgraft.weights.plan import tensors_of

    try:
        found = fit(model, weights)
    except SourceError as error:
        return Match(problem=error.what, origin=error.where, hint=error.hint)
    kept = tensors_of(model)
    values = _values(kept, found)
    return Match(found, values, _ties(kept, found), _untied(kept, found), origin=found.origin)


def _values(kept: Mapping[str, Tensor], found: Fit) -> Values:
    given = found.found.state
    matrices = [name for name in found.plan.taken if _is_plain(kept[name]) and kept[name].dim() > 1]
    differ = {name: _likeness(kept[name], given[found.plan.taken[name]]) for name in matrices}
    casts: dict[tuple[str, str], tuple[str, ...]] = {}
    for own, name in found.plan.taken.items():
        pair = (_type(kept[own].dtype), _type(given[name].dtype))
        if pair[0] != pair[1]:
            casts[pair] = (*casts.get(pair, ()), own)
    homes = [*found.plan.taken.items(), *((one.own, one.given) for one in found.plan.misfits)]
    placed = [name for _, name in homes]
    return Values(
        compared=tuple(matrices),
        strange=tuple(name for name, likeness in differ.items() if likeness < _ALIKE),
        moved=tuple(name for name, likeness in differ.items() if _ALIKE <= likeness < 1),
        begun=tuple(own for own, name in found.plan.taken.items() if _is_begun(kept[own], given[name])),
        own=tuple(own for own, name in found.plan.taken.items() if _is_one(kept[own], given[name])),
        negative=tuple(name for name in placed if name.endswith("running_var") and _is_negative(given[name])),
        broken={name: count for own, name in homes if (count := _broken(given[name], kept[own].dtype))},
        zero=tuple(name for name in placed if given[name].dim() > 1 and _is_zero(given[name])),
        casts=casts,
    )


_ALIKE = 0.5
"""Cosine under which two matrices have nothing in common: of independent random ones it lies around 0 within
1/sqrt(n), and fine-tuning leaves it near 1 (Neyshabur et al. 2020, What is being transferred, find distances that
are small against those to a model from scratch)."""

_SAMPLE = 65_536
"""How many values of a tensor the cosine reads: its spread is then under 0.004 (1/sqrt(n))."""


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor has values that can be read: not on meta, fake, sparse, quantised or lazy."""
    import torch
    from torch.nn.parameter import is_lazy

    strided = tensor.layout == torch.strided and not tensor.is_quantized
    return strided and tensor.device.type != "meta" and not is_lazy(tensor)


def _likeness(own: Tensor, given: Tensor) -> float:
    """Give the cosine of the two, 1.0 only where all values are equal after the cast of loading."""
    import torch

    if not _is_plain(given):
        return 1.0
    mine, theirs = own.detach().cpu(), given.detach().cpu()
    theirs = theirs.to(mine.dtype)
    if torch.equal(mine, theirs) or torch.equal(torch.nan_to_num(mine), torch.nan_to_num(theirs)):
        return 1.0
    first, second = (one.flatten()[:_SAMPLE].double() for one in (mine, theirs))
    norms = float(first.norm() * second.norm())
    cosine = float(first @ second) / norms if norms else 0.0
    return min(cosine, 0.999999)


def _is_begun(own: Tensor, given: Tensor) -> bool:
    """Tell whether a vector is as layers make it, all 0 or all 1, and the given one is not."""
    if (
        own.dim() != 1
        or own.numel() < 2
        or not own.is_floating_point()
        or not (_is_plain(own) and _is_plain(given))
    ):
        return False
    first = float(own.detach()[0])
    if first not in (0.0, 1.0) or not bool((own.detach() == first).all()):
        return False
    return bool((given.detach() != given.detach()[0]).any())


def _is_one(own: Tensor, given: Tensor) -> bool:
    both = _is_plain(own) and _is_plain(given) and own.device == given.device and own.numel() > 0
    return both and own.data_ptr() == given.data_ptr()


def _is_negative(tensor: Tensor) -> bool:
    return _is_plain(tensor) and tensor.is_floating_point() and bool((tensor < 0).any())


def _broken(tensor: Tensor, dtype: torch.dtype) -> int:
    """Count values that are NaN or infinite, or become so in the model's type."""
    if not _is_plain(tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    finite = (tensor.to(dtype) if dtype.is_floating_point else tensor).isfinite()
    return 0 if bool(finite.all()) else int((~finite).sum())


def _is_zero(tensor: Tensor) -> bool:
    return _is_plain(tensor) and tensor.numel() > 0 and not bool(tensor.any())


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _ties(kept: Mapping[str, Tensor], found: Fit) -> tuple[tuple[str, ...], ...]:
    """Find parameters of the model under several names for which the weights give several values."""
    import torch

    names: dict[int, list[str]] = {}
    for name in found.plan.taken:
        names.setdefault(id(kept[name]), []).append(name)
    given = {name: found.found.state[theirs] for name, theirs in found.plan.taken.items()}
    return tuple(
        tuple(tied)
        for tied in names.values()
        if any(not torch.equal(given[tied[0]], given[other]) for other in tied[1:])
    )


def _untied(kept: Mapping[str, Tensor], found: Fit) -> tuple[tuple[str, ...], ...]:
    """Find tensors that are one in the weights and several in the model."""
    homes: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for own, name in found.plan.taken.items():
        tensor = found.found.state[name]
        if _is_plain(tensor) and tensor.dim() > 1 and tensor.numel() > 1:
            homes.setdefault((tensor.data_ptr(), tuple(tensor.shape)), []).append(own)
    several = (tuple(names) for names in homes.values() if len({id(kept[name]) for name in names}) > 1)
    return tuple(several)
