"""Lists of layers that a model goes through: they grow and shrink by order, and their length is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torchgraft.surgery.journal import Surgery

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.trace import Trace

__all__ = ["follow_length", "is_list", "runs_with"]

_LENGTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "depth")
"""Attributes by which modules and configurations say how many layers they have."""


def is_list(module: nn.Module) -> bool:
    """Tell whether a module only holds others, in an order that the code around it may go through."""
    from torch import nn

    return isinstance(module, (nn.ModuleList, nn.ModuleDict)) and type(module).forward is nn.Module.forward


def follow_length(surgery: Surgery, path: str, before: int, *, place: int) -> None:
    """Let the nearest module and the nearest configuration around a list tell its new length.

    Args:
        surgery: what changed the list.
        path: of the list.
        before: its old length.
        place: where a layer came in or went out, from 0.
    """
    layers = list(surgery.module(path)._modules.values())
    now = len(layers)
    for number, layer in enumerate(layers[place:] if now < before else (), place):
        for part in layer.modules() if layer is not None else ():
            if vars(part).get("layer_idx") == number + 1:  # its place in the cache of transformers' decoders
                surgery.set(part, "layer_idx", number)
    parts = path.split(".")
    around = [surgery.module(".".join(parts[:end])) for end in range(len(parts) - 1, 0, -1)] + [surgery.model]
    telling = next((one for one in around if _told(one, before)), None)
    if telling is not None:
        surgery.set(telling, _told(telling, before), now)
    config = next((one for one in (vars(module).get("config") for module in around) if _told(one, before)), None)
    if config is not None:
        surgery.set(config, _told(config, before), now)
        kinds = vars(config).get("layer_types")  # of each layer, in transformers
        if isinstance(kinds, list) and len(kinds) == before:
            kept = [*kinds[:place], *kinds[place + 1 :]] if now < before else [*kinds[: place + 1], *kinds[place:]]
            surgery.set(config, "layer_types", kept[:now])


def _told(holder: Any, count: int) -> str:
    own = getattr(holder, "__dict__", {})
    return next((name for name in _LENGTHS if own.get(name) == count and type(own.get(name)) is int), "")


def runs_with(surgery: Surgery, change: Callable[[Surgery], None], *, calls: str = "", without: str = "") -> bool:
    """Try a change, take it back, and tell whether the model runs with it, all other modules at their old shapes.

    Args:
        surgery: of the model, before the change.
        change: what is tried.
        calls: a module that must then be called.
        without: a module that need not be called any more.
    """
    from torchgraft.trace import trace

    before = surgery.look(False)
    trial = Surgery(surgery.model, look=surgery.look, roles=surgery.roles, seed=surgery.seed, trust=surgery.trust)
    try:
        change(trial)
        run = trace(surgery.model, _example(before), train=False)
    finally:
        trial.undo()
    gone = (
        {path for path in before.called if path == without or path.startswith(f"{without}.")} if without else set()
    )
    needed = (before.called - gone) | ({calls} if calls else set())
    return run.mismatch is None and needed <= run.called


def _example(run: Trace) -> tuple[Any, ...]:
    """Give stand-ins for what the model was given, in order."""
    import torch

    kinds = {
        str(dtype).removeprefix("torch."): dtype
        for dtype in vars(torch).values()
        if isinstance(dtype, torch.dtype)
    }
    made = []
    for number in run.inputs:
        value = run.values[number]
        dtype = kinds[value.dtype.removeprefix("torch.")]
        home = "meta" if dtype.is_floating_point else "cpu"  # whole numbers may be read
        made.append(torch.zeros(value.shape, dtype=dtype, device=home))
    return tuple(made)
