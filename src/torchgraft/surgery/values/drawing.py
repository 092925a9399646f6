"""New values for one parameter, drawn from a seed of its own: the same whichever other parameters are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError, SelectionError, nearest
from torchgraft.rng import drawn_from
from torchgraft.surgery.journal import twin
from torchgraft.surgery.values.follows import gain, split
from torchgraft.surgery.values.initial import FUNCTIONS, Initial
from torchgraft.surgery.values.layerkinds import Place, parts

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["bare", "drawn", "held_as", "renewed"]


def drawn(
    place: Place, rule: Initial, *, seed: int, model: nn.Module, follows: str = "", mode: str | None = None
) -> Tensor:
    """Draw a tensor for a place, in single precision (double for a double one), on the CPU.

    Args:
        place: the parameter whose values are drawn anew.
        rule: how.
        seed: of the edit; the name of the parameter makes it its own.
        model: where `like` looks for another tensor.
        follows: the nonlinearity after the layer, such as `relu` or `leaky_relu(0.2)`; empty: torch's own default.
        mode: `fan_in` or `fan_out`, where the rule does not say.

    Raises:
        EditError: the rule does not fit the tensor.
    """
    import torch

    old = place.tensor
    if old.is_meta:
        return torch.empty(old.shape, dtype=old.dtype, device="meta")
    wide = torch.promote_types(old.dtype, torch.float32)
    with drawn_from(_seed(seed, place.name)), torch.no_grad():
        if rule.name == "reset":
            made = _reset(place)
        else:
            made = torch.empty(old.shape, dtype=wide, device="cpu")
            _fill(place, rule, made, _arguments(place, rule, model, follows, mode))
    padding = getattr(place.home, "padding_idx", None) if place.kind == "embedding" else None
    if padding is not None:
        made[padding] = 0
    return made


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7])


_DRAW = {"like": "normal", "lsuv": "orthogonal"}


def _fill(place: Place, rule: Initial, made: Tensor, given: Mapping[str, Any]) -> None:
    import torch
    from torch.nn import init

    function: Callable[..., Tensor] = getattr(init, f"{_DRAW.get(rule.name, rule.name)}_")
    try:
        for part in [made] if rule.name == "like" else parts(place, made):
            if part.is_contiguous():
                function(part, **given)
            else:
                part.copy_(function(torch.empty(part.shape, dtype=part.dtype, device="cpu"), **given))
    except (ValueError, RuntimeError, TypeError) as error:
        raise EditError(
            f"{rule.name} can't draw {place.name} of {list(made.shape)}: {str(error).splitlines()[0]}",
            where=place.name,
            hint="name the layers that it fits, or another rule for this kind: kaiming and xavier need two "
            "dimensions; zeros, ones, constant, normal and uniform draw any",
        ) from error


def _arguments(place: Place, rule: Initial, model: nn.Module, follows: str, mode: str | None) -> dict[str, Any]:
    """Give the arguments of the function of torch.nn.init."""
    if rule.name == "like":
        return _moments(_other(model, place, str(rule.args.get("at", "base"))))
    given: dict[str, Any] = {name: value for name, value in rule.args.items() if value != "auto"}
    if rule.name == "lsuv":
        return {}
    if rule.name == "dirac":
        groups = given.get("groups", getattr(place.home, "groups", 1))
        return {"groups": int(groups)}
    takes = FUNCTIONS[rule.name]
    if "mode" in takes and mode:
        given.setdefault("mode", mode)
    if follows and "nonlinearity" in takes and "nonlinearity" not in given:
        name, slope = split(follows)
        given |= {"nonlinearity": name, "a": slope if slope is not None else given.get("a", 0.0)}
    if follows and "gain" in takes and "gain" not in given:
        given["gain"] = gain(follows)
    return given


def _other(model: nn.Module, place: Place, at: str) -> Tensor:
    """Give the tensor whose statistics are taken: the place's own, or that of another path."""
    if at == "base":
        return place.tensor
    known = dict(model.named_parameters(remove_duplicate=False))
    found = known.get(at, known.get(f"{at}.{place.own}"))
    if found is None:
        homes = [name.rpartition(".")[0] for name in known]
        raise SelectionError(
            f"there is no parameter '{at}' and no {place.own} of a module '{at}'",
            where=f"init, {place.name}",
            hint=nearest(at, [*known, *homes]) or "name a layer or a parameter of the model",
        )
    return found


def _moments(tensor: Tensor) -> dict[str, float]:
    if tensor.is_meta:
        raise EditError(
            "a tensor on the meta device has no statistics", where="init", hint="load the weights first"
        )
    values = tensor.detach().double()
    return {"mean": float(values.mean()), "std": float(values.std(correction=0))}


def bare(place: Place) -> nn.Module:
    """Give a twin of a layer with tensors of its own, as its `reset_parameters` leaves them.

    Raises:
        EditError: the layer has none.
    """
    made = _stripped(place.home, place.path)
    reset = getattr(made, "reset_parameters", None) or getattr(made, "_reset_parameters", None)
    if reset is None:
        raise EditError(
            f"{type(place.home).__name__} has no reset_parameters",
            where=place.name,
            hint="name a function of torch.nn.init for it",
        )
    reset()
    return made


def _reset(place: Place) -> Tensor:
    made = bare(place)._parameters[place.own]
    assert made is not None, "a place holds a tensor, and so does its twin"
    return made.detach()


def _stripped(module: nn.Module, path: str) -> nn.Module:
    import torch
    from torch import nn

    made = twin(module, path)
    for name, one in made._parameters.items():
        if one is not None:
            wide = torch.promote_types(one.dtype, torch.float32)
            made._parameters[name] = nn.Parameter(torch.zeros(one.shape, dtype=wide, device="cpu"))
    for name, buffer in made._buffers.items():
        made._buffers[name] = None if buffer is None else buffer.detach().clone()
    for name, child in made._modules.items():
        made._modules[name] = None if child is None else _stripped(child, f"{path}.{name}")
    return made


def held_as(made: Tensor, old: Tensor) -> Tensor:
    """Give values the dtype, device and memory format of the tensor whose place they take."""
    import torch

    if (made.dtype, made.device, made.stride()) == (old.dtype, old.device, old.stride()):
        return made
    with torch.no_grad():
        return torch.empty_like(old, requires_grad=False).copy_(made)


def renewed(made: Tensor, old: nn.Parameter) -> nn.Parameter:
    """Give a parameter of new values in the place of an old one: its flag and its marks stay."""
    from torch import nn

    new = nn.Parameter(held_as(made, old), requires_grad=old.requires_grad)
    new.__dict__.update(old.__dict__)
    return new
