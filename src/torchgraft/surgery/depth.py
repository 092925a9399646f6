"""Blocks in a row: which ones are meant, copies of them, and what else counts them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError
from torchgraft.surgery.journal import every, held

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["counts_follow", "double", "layer_numbers", "numbers_follow"]

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "num_blocks")
_SIDES = {"encoder": ("encoder_layers",), "decoder": ("decoder_layers", "num_decoder_layers")}


def double(model: nn.Module, block: nn.Module, path: str, *, share: bool = False) -> nn.Module:
    """Give a second block with tensors of its own.

    What the block shares with the rest of the model stays shared: modules and tensors that others hold too, and
    the configuration.

    Args:
        model: the whole model.
        block: what is doubled.
        path: where it stands, for messages.
        share: let the second one hold the very tensors of the first.

    Raises:
        EditError: the block holds what can't be copied.
    """
    inside = {id(one) for one in every(block)}
    outside = [one for one in _without(model, block) if id(one) not in inside]
    memo: dict[int, Any] = {id(one): one for one in _without(model, block) if id(one) in inside}
    lent = [*outside, *([*every(block)] if share else [])]
    for module in lent:
        for table in (module._parameters, module._buffers):
            memo.update({id(tensor): tensor for tensor in table.values() if tensor is not None})
    for module in every(model):
        config = vars(module).get("config")
        if config is not None:
            memo[id(config)] = config
    try:
        made: nn.Module = copy.deepcopy(block, memo)
    except (RuntimeError, TypeError, ValueError) as error:
        raise EditError(
            f"this {type(block).__name__} can't be copied: {str(error).splitlines()[0]}",
            where=path,
            hint="run it under torch.no_grad(), so that it keeps no graph of a pass, and try again",
        ) from error
    return made


def _without(model: nn.Module, block: nn.Module) -> list[nn.Module]:
    """Give every module that is reached without passing through the block."""
    found = {id(model): model}
    queue = [model]
    for module in queue:
        for child in module._modules.values():
            if child is not None and child is not block and id(child) not in found:
                found[id(child)] = child
                queue.append(child)
    return queue


def layer_numbers(home: nn.Module) -> dict[str, int]:
    """Give, for each child that knows its number (`layer_idx` of transformers), how far that is from its place."""
    shifts: dict[str, int] = {}
    for place, (name, child) in enumerate(home._modules.items()):
        known = [vars(one)["layer_idx"] for one in every(child) if _numbered(one)] if child is not None else []
        if known:
            shifts[name] = known[0] - place
    return shifts


def _numbered(module: nn.Module) -> bool:
    return type(vars(module).get("layer_idx")) is int


def numbers_follow(surgery: Surgery, home: nn.Module, shifts: dict[str, int]) -> None:
    """Number the layers anew in the order of the pass, so that each has a slot of its own in a cache of keys."""
    for place, (name, child) in enumerate(home._modules.items()):
        for module in every(child) if child is not None and name in shifts else ():
            if _numbered(module) and vars(module)["layer_idx"] != place + shifts[name]:
                surgery.set(module, "layer_idx", place + shifts[name])


def counts_follow(surgery: Surgery, home: str, before: int, order: Sequence[int]) -> None:
    """Let attributes and configurations around a list of blocks tell how many there are now.

    Args:
        surgery: changes them.
        home: the path of the list.
        before: how many blocks it had.
        order: for each block it has now, the place of the one it is a copy of.
    """
    holders = list(_around(surgery.model, home))
    configs = {id(one): one for one in (vars(holder).get("config") for holder in holders) if one is not None}
    root = vars(surgery.model).get("config")
    for one in (*holders, *configs.values()):
        known = vars(one) if hasattr(one, "__dict__") else {}
        for name in _names(known, home, own=one is not root):
            if known.get(name) == before and type(known[name]) is int:
                surgery.set(one, name, len(order))
        for name in [name for name in known if "layer" in name and not name.startswith("_")]:
            each = known[name]
            if isinstance(each, (list, tuple)) and len(each) == before and len(order) != before:
                surgery.set(one, name, type(each)(each[place] for place in order))
        _stages_follow(surgery, one, home, before, len(order))


def _names(known: dict[str, Any], home: str, *, own: bool) -> tuple[str, ...]:
    """Name the counts that are meant: an encoder's and a decoder's are told apart."""
    for side, names in _SIDES.items():
        if side in home.split(".") and any(name in known for name in names):
            return (*names, *_COUNTS) if own or side == "encoder" else names
    return _COUNTS


def _stages_follow(surgery: Surgery, holder: object, home: str, before: int, now: int) -> None:
    """Let `depths`, one for each stage, follow: `swin.encoder.layers.2.blocks` is stage 2."""
    depths = vars(holder).get("depths") if hasattr(holder, "__dict__") else None
    stages = [int(part) for part in home.split(".") if part.isdecimal()]
    if isinstance(depths, (list, tuple)) and stages and stages[0] < len(depths) and depths[stages[0]] == before:
        after = [now if stage == stages[0] else depth for stage, depth in enumerate(depths)]
        surgery.set(holder, "depths", type(depths)(after))


def _around(model: nn.Module, home: str) -> Iterator[nn.Module]:
    yield model
    parts = home.split(".") if home else []
    for end in range(1, len(parts) + 1):
        found = held(model, ".".join(parts[:end]))
        if found is not None:
            yield found
