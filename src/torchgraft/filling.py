"""Fill a model with weights from anywhere: names matched, other sizes fitted on request, nothing in silence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torchgraft.edits.input import fold
from torchgraft.errors import SourceError, TorchgraftWarning
from torchgraft.weights.filled import Filled
from torchgraft.weights.fit import Fit, fit
from torchgraft.weights.plan import Plan, plan_of, tensors_of
from torchgraft.weights.skeleton import draw, drawable, on_meta, place

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from torchgraft.graft import Graft
    from torchgraft.weights.plan import Misfit

__all__ = ["Filled", "fill", "load_into"]


@dataclass(frozen=True)
class _Edited:
    """What edits did to the names: nothing, where there are none.

    Attributes:
        bases: the model's name -> the base's, of what survives under another name.
        made: names of tensors that edits made anew, and the number of the edit.
        gone: the base's names of tensors that edits took out.
        seed: what is drawn from, where nothing is given.
        random: the base's weights were random: what edits made of them is worth nothing.
    """

    bases: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, int] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    seed: int = 0
    random: bool = False


def load_into(graft: Graft, weights: Any, *, resize: bool = False, sha256: str = "") -> Filled:
    """Load weights of any form into the model; see `fill`.

    The base's own state dict goes to what is left of the base, under whichever names edits moved it to: what edits
    made anew keeps its values, what they took out is counted, and neither is a warning.

    Like training it changes values in place and no structure, so it is no edit: optimizers and ties stay as they
    are, and a version that is kept afterwards holds what differs from the base. A model on meta gets its tensors
    now: the base's weights go into the base, and the edits are made again, so that what they compute from weights
    (kept rows, folded channels, adapters that start at zero) is as if they had been there before. Weights of the
    edited model itself go straight into place; no edit from before can be taken back then.
    """
    found = fit(graft.module, weights, sha256=sha256)
    filled = _made_again(graft, found, resize=resize) if _is_the_bases(graft, found) else None
    if filled is None:
        filled = _filled(graft.module, found, _edited(graft), resize=resize)
    graft.filled = True
    return _told(filled)


def _is_the_bases(graft: Graft, found: Fit) -> bool:
    """Tell whether weights for an edited model on meta are rather its base's than its own."""
    if not graft.recipe.edits or not on_meta(graft.module) or found.plan.direct == found.plan.size:
        return False
    theirs = plan_of(graft.base_tensors(), found.found.state)
    return bool(theirs.taken) and len(theirs.taken) * found.plan.size >= len(found.plan.taken) * theirs.size


def _made_again(graft: Graft, found: Fit, *, resize: bool) -> Filled | None:
    """Fill the base of a model on meta, and make its edits again; None where the base alone can't be filled."""
    edits = graft.recipe.edits
    for _ in edits:
        graft.undo()
    try:
        base = replace(found, plan=plan_of(tensors_of(graft.module), found.found.state))
        filled = _filled(graft.module, base, _Edited(seed=graft.recipe.seed), resize=resize)
        graft.filled = True
        graft.apply_all(edits)
    except SourceError:
        for _ in edits:
            graft.redo()
        return None
    except BaseException:
        for _ in edits:
            graft.redo()
        raise
    return _renamed(filled, _edited(graft), tensors_of(graft.module))


def _renamed(filled: Filled, edited: _Edited, own: Iterable[str]) -> Filled:
    """Tell what became of the base's tensors by the names that edits gave them."""
    kept = {name: edited.bases.get(name, name) for name in own if name not in edited.made}

    def now(names: Iterable[str]) -> tuple[str, ...]:
        asked = set(names)
        return tuple(name for name, old in kept.items() if old in asked)

    return replace(
        filled,
        loaded=now(filled.loaded),
        resized={name: filled.resized[kept[name]] for name in now(filled.resized)},
        left={name: filled.left[kept[name]] for name in now(filled.left)},
        missing=now(filled.missing),
        broken={name: filled.broken[kept[name]] for name in now(filled.broken)},
        made=edited.made,
        gone=tuple(name for name in filled.loaded if name in edited.gone),
        drawn=now(filled.drawn),
    )


def fill(model: nn.Module, weights: Any, *, resize: bool = False, sha256: str = "") -> Filled:
    """Load weights of any form into a model, as far as they fit, and say what became of each tensor.

    Args:
        model: what is filled, in place. Values are copied into its tensors, and cast to their types; where these
            lie on meta, what was read off a file takes their place without a copy.
        weights: a state dict, a whole training checkpoint, a module, or a file of any of these.
        resize: make what has another size fit: new input channels start at zero (of a grey image: they share its
            weights), fewer are summed; position embeddings are interpolated; of an output layer the rows that
            both sides have are taken. Without it such tensors are left as they are.
        sha256: what a file must have, or its first digits.

    Returns:
        the account; where anything was left, missing, unexpected or not finite, a TorchgraftWarning tells it too.

    Raises:
        SourceError: the weights can't be read, are plainly those of another model, or leave something on meta that
            can't be drawn anew; the model is as it was.
    """
    return _told(_filled(model, fit(model, weights, sha256=sha256), _Edited(), resize=resize))


def _edited(graft: Graft) -> _Edited:
    """Compare the tensors that a graft has with those that its base had, by identity."""
    if not graft.recipe.edits:
        return _Edited(seed=graft.recipe.seed)
    own, base = tensors_of(graft.module), graft.base_tensors()
    kept, born = {id(one) for one in own.values()}, {id(one) for one in base.values()}
    bases = {name: old for name in own if (old := graft.recipe.base_name(name)) != name}
    made = {name: _edit_of(name, graft.added) for name, one in own.items() if id(one) not in born}
    reached = {bases.get(name, name) for name in own}
    held = {id(one) for name, one in base.items() if name in reached}  # of what was tied, one name may be left
    gone = frozenset(
        name for name, one in base.items() if id(one) not in kept or (name not in reached and id(one) in held)
    )
    return _Edited(bases, made, gone, graft.recipe.seed, graft.is_random)


def _edit_of(name: str, added: Mapping[str, int]) -> int:
    """Give the number of the edit that put in what a name lies in; 0 where none is known."""
    homes = [path for path in added if name == path or name.startswith(f"{path}.")]
    return added[max(homes, key=len)] if homes else 0


def _filled(model: nn.Module, found: Fit, edited: _Edited, *, resize: bool) -> Filled:
    own = tensors_of(model)
    found = _by_base_names(found, own, edited.bases)
    _refuse(found, edited)
    state = found.found.state
    values = {name: state[given] for name, given in found.plan.taken.items()}
    left = {name: why for name, one in values.items() if (why := _unlike(one, own[name]))}
    resized: dict[str, str] = {}
    for misfit in found.plan.misfits:
        made = _fitted(misfit, state[misfit.given], own[misfit.own]) if resize else None
        if made is None:
            left[misfit.own] = _other_size(misfit)
        else:
            values[misfit.own], resized[misfit.own] = made
    taken = {name: one for name, one in values.items() if name not in left}
    drawn = _put(model, taken, found, edited.seed)
    broken = {name: count for name, one in taken.items() if (count := _odd(one, own[name].dtype))}
    return replace(_account(found, left, resized, edited), broken=broken, drawn=drawn)


def _by_base_names(found: Fit, own: Mapping[str, Tensor], bases: Mapping[str, str]) -> Fit:
    """Read the weights as the base's, where more of them find their place by the base's names than by ours.

    Several names may have their values from one of the base's: copies of a block, and what was tied or shared.
    """
    if not bases:
        return found
    if found.plan.direct == found.plan.size:
        return replace(found, plan=_as_held(found.plan, own, bases))
    heirs: dict[str, list[str]] = {}
    for name in sorted(own, key=lambda name: name in bases):
        heirs.setdefault(bases.get(name, name), []).append(name)
    theirs = plan_of({base: own[first] for base, (first, *_) in heirs.items()}, found.found.state)
    alike = {
        base: [one for one in names if own[one].shape == own[names[0]].shape] for base, names in heirs.items()
    }
    odd = [one for base, names in heirs.items() for one in names if one not in alike[base]]
    read = replace(
        theirs,
        taken={one: given for base, given in theirs.taken.items() for one in alike[base]},
        misfits=tuple(replace(misfit, own=one) for misfit in theirs.misfits for one in alike[misfit.own]),
        missing=(*(one for base in theirs.missing for one in alike[base]), *odd),
        renamed={one: given for base, given in theirs.renamed.items() for one in alike[base]},
    )
    if _surety(read) < _surety(found.plan):
        return found
    count = sum(name in bases.values() for name in theirs.taken)
    return replace(found, plan=read, said=(f"{count} names are the base's, and go where edits moved them",))


def _as_held(plan: Plan, own: Mapping[str, Tensor], bases: Mapping[str, str]) -> Plan:
    """Give a tensor that edits tied to another the other's values: the base has both names, and one counts."""
    taken = dict(plan.taken)
    for name, base in bases.items():
        if own.get(base) is own[name] and base in taken:
            taken[name] = taken[base]
    return replace(plan, taken=taken)


def _surety(plan: Plan) -> tuple[int, int]:
    """Order plans: what gives more tensors their place, then what has to guess less at names."""
    return len(plan.taken), -len(plan.renamings) - len(plan.renamed)


def _refuse(found: Fit, edited: _Edited) -> None:
    """Refuse weights of another model; what edits explain is no sign of one."""
    plan = found.plan
    explained = replace(
        plan,
        unexpected=_without(plan.unexpected, edited.gone),
        size=plan.size - sum(name in edited.made for name in plan.missing),
    )
    if not plan.taken or explained.is_other:
        what, hint = found.why_not("check that the file and the architecture belong together")
        raise SourceError(f"the weights are not for this model: {what}", where=found.origin, hint=hint)


def _put(model: nn.Module, values: Mapping[str, Tensor], found: Fit, seed: int) -> tuple[str, ...]:
    """Copy values into the model's tensors, or put them in place of those that lie on meta.

    Returns:
        the names that lay on meta, got nothing, and were drawn anew.
    """
    empty = on_meta(model)
    if not empty:
        model.load_state_dict(dict(values), strict=False)
        return ()
    own = tensors_of(model)
    given = {id(own[name]) for name in values}
    open_ = [name for name in empty if name not in own or id(own[name]) not in given]
    lost = [name for name in open_ if name not in drawable(model, open_)]
    if lost:
        raise SourceError(
            f"{len(lost)} tensors lie on meta and would get no values, such as {lost[0]}",
            where=found.origin,
            hint="give weights for all of them; what is computed when a model is built (tables, masks) has its "
            "values where only the parameters lie on meta: tg.load(…, meta=True)",
        )
    place(model, values, copy=not found.read)
    draw(model, open_, seed=seed)
    return tuple(open_)


def _other_size(misfit: Misfit) -> str:
    empty = "; an empty tensor stands for values that lie elsewhere (DeepSpeed ZeRO-3)" if 0 in misfit.has else ""
    return f"{list(misfit.has)} is given, {list(misfit.wants)} is needed{empty}"


def _unlike(given: Tensor, own: Tensor) -> str:
    """Say why values of this type can't stand for the model's; empty when they can."""
    if own.is_floating_point() and not (given.is_floating_point() or given.is_complex()):
        return (
            f"{given.dtype} is given where {own.dtype} is needed: codes of a quantised model without their scale"
        )
    return ""


def _odd(given: Tensor, dtype: torch.dtype) -> int:
    """Count values that are NaN or infinite, or become so in the model's type."""
    if not given.is_floating_point() and not given.is_complex():
        return 0
    finite = given.to(dtype).isfinite()
    return 0 if bool(finite.all()) else int((~finite).sum())


def _account(found: Fit, left: Mapping[str, str], resized: Mapping[str, str], edited: _Edited) -> Filled:
    """Tell what is amiss from what edits explain."""
    cut = {one.own for one in found.plan.misfits if edited.random and one.kind in ("channels", "positions")}
    made = {name: edited.made[name] for name in (*left, *found.plan.needed) if name in edited.made.keys() - cut}
    return Filled(
        origin=found.origin,
        loaded=tuple(name for name in found.plan.taken if name not in left),
        resized=resized,
        left={name: why for name, why in left.items() if name not in made},
        missing=_without(found.plan.needed, made),
        unexpected=_without(found.plan.surplus, edited.gone),
        changes=tuple(found.changes()),
        made=made,
        gone=tuple(name for name in found.plan.surplus if name in edited.gone),
        doubts=tuple(found.doubts()),
    )


def _without(names: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    out = set(others)
    return tuple(name for name in names if name not in out)


def _told(filled: Filled) -> Filled:
    if not filled.expected:
        warnings.warn(str(filled), TorchgraftWarning, stacklevel=3)
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
