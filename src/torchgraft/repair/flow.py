"""Where channels come from: each fake tensor's makers, and the layers that decide the size of one dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from torchgraft.edits.resize import depthwise
from torchgraft.repair.bench import LAYERS

__all__ = ["LAST_OPS", "NORM_OPS", "WEIGHTED_OPS", "Node", "Source", "dims_of", "sources"]

WEIGHTED_OPS = ("conv1d", "conv2d", "conv3d", "linear")
NORM_OPS = ("batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm")
LAST_OPS = ("linear", "layer_norm", "rms_norm")

_ENDS = frozenset(
    {"matmul", "bmm", "baddbmm", "einsum", "__matmul__", "scaled_dot_product_attention", "chunk", "split"}
    | {
        "unbind",
        "multi_head_attention_forward",
        "pixel_shuffle",
        "pixel_unshuffle",
        "embedding",
        "projection",
        "stack",
    }
    | {"split_with_sizes", "tensor_split", "conv_transpose2d", "fold", "unfold", "repeat", "repeat_interleave"}
)
"""Operations whose output sizes follow no one layer."""

_JOINS = ("cat", "concat", "concatenate")
_VIEWS = frozenset({"reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as", "reshape_as"})
_EXPANDS = ("expand", "expand_as", "broadcast_to")


@dataclass(eq=False)
class Node:
    """A tensor at one moment of the pass.

    Attributes:
        shape: its shape then.
        op: the operation that made it; None for an input of the model or a parameter.
        path: the module that called the operation.
        inputs: the tensors that it was made of, parameters among them.
        dims: how the operation orders dimensions, where it does.
        param: the name, where it is a parameter or buffer itself.
        changed: whether it has another shape than before the edit.
        gave: the modules that gave this very tensor, the innermost first.
        constant: whether it is made of parameters alone.
    """

    shape: tuple[int, ...]
    op: str | None = None
    path: str = ""
    inputs: tuple[Node, ...] = ()
    dims: tuple[int, ...] | None = None
    param: str | None = None
    changed: bool = False
    gave: list[str] = field(default_factory=list)
    constant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.constant = self.param is not None or (bool(self.inputs) and all(one.constant for one in self.inputs))


@dataclass(frozen=True)
class Source:
    """What decides the size of a dimension: a layer's outputs, or one dimension of a raw parameter."""

    path: str = ""
    param: str = ""
    dim: int = 0
    shape: tuple[int, ...] = ()
    scales: bool = False


def sources(
    node: Node, dim: int, modules: dict[str, nn.Module], allowed: Callable[[str], bool]
) -> list[Source] | None:
    """Find everything that must change so that dimension `dim` of a tensor gets another size.

    Returns:
        layers and parameters; None where something on the way can't follow.
    """
    found: dict[Source, None] = {}
    queue, seen = [(node, dim % max(len(node.shape), 1), False)], set()
    while queue:
        one, place, scales = queue.pop()
        if (id(one), place) in seen:
            continue
        seen.add((id(one), place))
        if one.param is not None:
            found.setdefault(Source(param=one.param, dim=place, shape=one.shape, scales=scales))
            continue
        layer = modules.get(one.path)
        if one.op in WEIGHTED_OPS:
            source = _layer(one, place, layer, allowed)
            if source is None:
                return None
            if isinstance(source, Source):
                found.setdefault(source)
            else:
                queue.append((source, place, False))
            continue
        behind = _behind(one, place)
        if not behind:
            return None
        times = one.op in _SCALES or (scales and one.constant)
        queue += [(*step, times) for step in behind]
    return list(found)


_SCALES = ("mul", "mul_", "__mul__", "__imul__", "__rmul__")


def _layer(node: Node, dim: int, layer: nn.Module | None, allowed: Callable[[str], bool]) -> Source | Node | None:
    """Give the layer as a source; the tensor before it, where each channel passes by itself."""
    channels = len(node.shape) - 1 if node.op == "linear" else 1
    if dim != channels or not isinstance(layer, LAYERS):
        return None
    if not isinstance(layer, nn.Linear) and depthwise(layer) and layer.in_channels == layer.out_channels:
        return node.inputs[0] if node.inputs else None
    return Source(path=node.path) if allowed(node.path) else None


def _behind(node: Node, dim: int) -> list[tuple[Node, int]] | None:
    """Say which dimension of which inputs has the size of one dimension of an output."""
    if node.op is None or node.op in _ENDS or not node.inputs:
        return None
    if node.op in NORM_OPS:
        return [(node.inputs[0], dim)]
    if node.op in _JOINS:
        at = (node.dims or (0,))[0] % len(node.shape)
        return None if at == dim else [(one, dim) for one in node.inputs]
    if node.op == "permute" and node.dims:
        return [(node.inputs[0], node.dims[dim] % len(node.shape))]
    if node.op in ("transpose", "swapaxes") and node.dims and len(node.dims) == 2:
        first, second = (one % len(node.shape) for one in node.dims)
        return [(node.inputs[0], {first: second, second: first}.get(dim, dim))]
    if node.op in _VIEWS:
        place = _viewed(node.inputs[0].shape, node.shape, dim)
        return None if place is None else [(node.inputs[0], place)]
    return _aligned(node, dim)


def _viewed(given: Sequence[int], gave: Sequence[int], dim: int) -> int | None:
    """Find the dimension that a view left whole: as long, with as many elements before it."""
    before = math.prod(gave[:dim])
    for place, size in enumerate(given):
        if size == gave[dim] and math.prod(given[:place]) == before:
            return place
    return None


def _aligned(node: Node, dim: int) -> list[tuple[Node, int]] | None:
    """Follow an operation that works element by element, pools places, or reduces other dimensions."""
    size, back = node.shape[dim], len(node.shape) - dim
    found: list[tuple[Node, int]] = []
    for one in node.inputs:
        if not one.shape or math.prod(one.shape) == 1:
            continue
        same_rank = len(one.shape) == len(node.shape)
        if same_rank or node.op in _EXPANDS or len(one.shape) < len(node.shape):
            place = len(one.shape) - back
            if place < 0 or (one.shape[place] == 1 and size != 1):
                continue
            if one.shape[place] != size:
                return None
            found.append((one, place))
        else:  # dimensions were taken out: the only one of that size is it
            places = [place for place, held in enumerate(one.shape) if held == size]
            if len(places) != 1:
                return None
            found.append((one, places[0]))
    return found


def dims_of(op: str, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[int, ...] | None:
    """Read how an operation orders dimensions off its arguments."""
    if op in _JOINS:
        at = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
        return (at,) if isinstance(at, int) else None
    if op not in ("permute", "transpose", "swapaxes"):
        return None
    given = args[1:] or tuple(kwargs.values())
    flat = given[0] if given and isinstance(given[0], (tuple, list)) else given
    return tuple(flat) if all(isinstance(one, int) for one in flat) else None
