"""Fill a model with weights from anywhere: names matched, other sizes fitted on request, nothing in silence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torchgraft.edits.input import fold
from torchgraft.errors import SourceError, TorchgraftWarning
from torchgraft.weights.fit import Fit, fit
from torchgraft.weights.plan import tensors_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.graft import Graft
    from torchgraft.weights.plan import Misfit

__all__ = ["Filled", "fill", "load_into"]


@dataclass(frozen=True)
class Filled:
    """What became of every tensor.

    Attributes:
        origin: where the weights came from.
        loaded: names of the model that hold given values now, as they were given.
        resized: names that hold given values made to fit, and how.
        left: names that keep their own values although something was given, and why.
        missing: names that nothing was given for; they keep their own values.
        unexpected: given names that have no place in the model.
        changes: what was done to the names: unwrapped, prefixes, renamed.
        broken: names that hold values now which are NaN or infinite, and how many.
    """

    origin: str
    loaded: tuple[str, ...] = ()
    resized: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    broken: Mapping[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Tell whether every tensor of the model was given as it is, and none was left over."""
        return not (self.resized or self.left or self.missing or self.unexpected)

    def __str__(self) -> str:
        lines = [f"{self.origin}: {len(self.loaded)} tensors loaded", *self.changes]
        lines += [f"{name}: {how}" for name, how in self.resized.items()]
        lines += [f"{name} is left as it was: {why}" for name, why in self.left.items()]
        if self.broken:
            count, names = sum(self.broken.values()), list(self.broken)
            lines.append(
                f"{count:,} values are NaN or infinite: {', '.join(names[:4])}{', …' if names[4:] else ''}"
            )
        for several, what in ((self.missing, "not given"), (self.unexpected, "without a place in the model")):
            if several:
                lines.append(f"{len(several)} {what}: {', '.join(several[:4])}{', …' if len(several) > 4 else ''}")
        return "\n  ".join(lines)


def load_into(graft: Graft, weights: Any, *, resize: bool = False) -> Filled:
    """Load weights of any form into the model; see `fill`.

    Like training it changes values in place and no structure, so it is no edit: optimizers and ties stay as they
    are, and a version that is kept afterwards holds what differs from the base.
    """
    return fill(graft.module, weights, resize=resize)


def fill(model: nn.Module, weights: Any, *, resize: bool = False) -> Filled:
    """Load weights of any form into a model, as far as they fit, and say what became of each tensor.

    Args:
        model: what is filled, in place.
        weights: a state dict, a whole training checkpoint, a module, or a file of any of these.
        resize: make what has another size fit: new input channels start at zero (of a grey image: they share its
            weights), fewer are summed; position embeddings are interpolated; of an output layer the rows that
            both sides have are taken. Without it such tensors are left as they are.

    Returns:
        the account; where anything was left, missing, unexpected or not finite, a TorchgraftWarning tells it too.

    Raises:
        SourceError: the weights can't be read, or are plainly those of another model; the model is as it was.
    """
    found = fit(model, weights)
    own = tensors_of(model)
    _refuse(found, own)
    values = {name: found.found.state[given] for name, given in found.plan.taken.items()}
    left = {name: why for name, one in values.items() if (why := _unlike(one, own[name]))}
    resized: dict[str, str] = {}
    for misfit in found.plan.misfits:
        made = _fitted(misfit, found.found.state[misfit.given], own[misfit.own]) if resize else None
        if made is None:
            left[misfit.own] = f"{list(misfit.has)} is given, {list(misfit.wants)} is needed"
        else:
            values[misfit.own], resized[misfit.own] = made
    taken = {name: one for name, one in values.items() if name not in left}
    model.load_state_dict(taken, strict=False)
    broken = {name: count for name, one in taken.items() if (count := _odd(one))}
    return _told(replace(_account(found, left, resized), broken=broken))


def _refuse(found: Fit, own: Mapping[str, Tensor]) -> None:
    if not found.plan.taken or found.plan.is_other:
        raise SourceError(
            f"the weights are not for this model: {', '.join(found.plan.sentences()) or 'it has no tensors'}",
            where=found.origin,
            hint="check that the file and the architecture belong together",
        )
    if any(own[name].device.type == "meta" for name in found.plan.taken):
        raise SourceError(
            "the model lies on the meta device, where a tensor has no values to fill",
            where=found.origin,
            hint="model.to_empty(device='cpu') first",
        )


def _unlike(given: Tensor, own: Tensor) -> str:
    """Say why values of this type can't stand for the model's; empty when they can."""
    if own.is_floating_point() and not (given.is_floating_point() or given.is_complex()):
        return (
            f"{given.dtype} is given where {own.dtype} is needed: codes of a quantised model without their scale"
        )
    return ""


def _odd(given: Tensor) -> int:
    """Count values that are NaN or infinite."""
    if not given.is_floating_point() and not given.is_complex():
        return 0
    finite = given.isfinite()
    return 0 if bool(finite.all()) else int((~finite).sum())


def _account(found: Fit, left: Mapping[str, str], resized: Mapping[str, str]) -> Filled:
    return Filled(
        origin=found.origin,
        loaded=tuple(name for name in found.plan.taken if name not in left),
        resized=resized,
        left=left,
        missing=found.plan.needed,
        unexpected=found.plan.surplus,
        changes=tuple(found.changes()),
    )


def _told(filled: Filled) -> Filled:
    if filled.left or filled.missing or filled.unexpected or filled.broken:
        warnings.warn(str(filled), TorchgraftWarning, stacklevel=4)
    return filled


def _fitted(misfit: Misfit, given: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
    """Make a tensor of another size fit, and say how; None where that makes no sense."""
    if misfit.kind == "channels":
        return _channels(given, own)
    if misfit.kind == "positions":
        return _positions(given, own)
    if misfit.kind == "rows":
        rows = min(given.shape[0], own.shape[0])
        made = own.detach().clone()
        made[:rows] = given[:rows]
        return (
            made,
            f"the first {rows} of {given.shape[0]} rows are taken, {own.shape[0] - rows} stay as they were",
        )
    return None


def _channels(given: Tensor, own: Tensor) -> tuple[Tensor, str]:
    """Fit the input channels of the first convolution `[O, I, …]`."""
    old, new = given.shape[1], own.shape[1]
    if new < old:
        return fold(given, new), f"{old} input channels are summed to {new}"
    if old == 1:
        return fold(given, new), f"the one input channel is shared among {new}"
    made = given.new_zeros((given.shape[0], new, *given.shape[2:]))
    made[:, :old] = given
    return made, f"{old} input channels are taken, {new - old} new ones start at zero"


def _positions(given: Tensor, own: Tensor) -> tuple[Tensor, str] | None:
    """Interpolate an embedding of places, bicubic, as ViT and Swin are carried to another image size.

    `[…, k + n², C]` with k leading tokens that stand for no place (a class token, a distillation token), or a
    table of relative places `[n², heads]`. What is no embedding of a square of places is left (None).
    """
    from torch.nn.functional import interpolate

    if given.dim() != own.dim() or given.dim() < 2 or given.shape[-1] != own.shape[-1]:
        return None
    if not given.is_floating_point() or given.shape[:-2] != own.shape[:-2]:
        return None
    grids = _grids(given.shape[-2], own.shape[-2])
    if grids is None:
        return None
    tokens, old, new = grids
    flat = given.reshape(-1, *given.shape[-2:])
    places = flat[:, tokens:].float().reshape(-1, old, old, given.shape[-1]).permute(0, 3, 1, 2)
    corners = given.dim() > 2  # torchvision's interpolate_embeddings aligns them, tables of relative places do not
    wide = interpolate(places, size=(new, new), mode="bicubic", align_corners=corners)
    made = wide.permute(0, 2, 3, 1).flatten(1, 2).to(given.dtype)
    whole = flat.new_empty((len(flat), tokens + new * new, given.shape[-1]))
    whole[:, :tokens], whole[:, tokens:] = flat[:, :tokens], made
    return whole.reshape(own.shape), f"places interpolated from {old}×{old} to {new}×{new}, {tokens} tokens kept"


def _grids(old: int, new: int) -> tuple[int, int, int] | None:
    """Find how many leading tokens make both a square of places."""
    for tokens in range(6):  # registers: up to four beside a class token
        sides = [math.isqrt(max(count - tokens, 0)) for count in (old, new)]
        if all(side > 1 and side * side == count - tokens for side, count in zip(sides, (old, new), strict=True)):
            return tokens, sides[0], sides[1]
    return None
