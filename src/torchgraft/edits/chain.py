"""Modules of plain torch.fx around another: they take what it takes, where a Sequential would take one tensor."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["chained", "gated", "routed", "takes_one"]


def takes_one(module: nn.Module) -> bool:
    """Tell whether the forward of a module has one argument, and no other that could be given."""
    return len(inspect.signature(module.forward).parameters) == 1


def chained(path: str, pair: Sequence[tuple[str, nn.Module]], *, after: bool) -> nn.Module:
    """Put a module behind another, or before its first argument, whatever else that takes.

    Args:
        path: where they stand, for messages.
        pair: name and module of the old one and of the new one.
        after: whether the new one takes what the old one gives.

    Raises:
        EditError: the old one takes any number of arguments, so that no signature can be written down.
    """
    (base, old), (name, _) = pair
    graph, arguments, named = _arguments(old, path)
    if after:
        out = graph.call_module(name, (graph.call_module(base, tuple(arguments), named),))
    else:
        first = graph.call_module(name, (arguments[0],))
        out = graph.call_module(base, (first, *arguments[1:]), named)
    return _made(graph, out, dict(pair), "Chain")


def _arguments(module: nn.Module, path: str) -> tuple[fx.Graph, list[fx.Node], dict[str, Any]]:
    """Start a graph with the arguments of a forward; optional ones keep their defaults."""
    from torch import fx

    graph = fx.Graph()
    arguments: list[fx.Node] = []
    named: dict[str, Any] = {}
    for name, one in inspect.signature(module.forward).parameters.items():
        if one.kind is one.VAR_KEYWORD:
            continue
        if one.kind is one.VAR_POSITIONAL:
            raise EditError(
                f"the forward of this {type(module).__name__} takes any number of arguments",
                where=path,
                hint="edit a module inside of it, or the one around it",
            )
        node = graph.placeholder(name) if one.default is one.empty else graph.placeholder(name, None, one.default)
        if one.kind is one.KEYWORD_ONLY:
            named[name] = node
        else:
            arguments.append(node)
    return graph, arguments, named


def routed(module: nn.Module, takes: Sequence[str], *, feed: int | None, dim: int, pair: bool) -> nn.Module:
    """Let a module of one input stand where several are given.

    Args:
        module: it takes one tensor; held as `base`.
        takes: the names of what is given there.
        feed: which of them it gets; None: the tensors that the first one holds, joined along `dim`.
        dim: where they are joined.
        pair: whether what it gives is the first of a pair, whose second is None.
    """
    import torch
    from torch import fx

    graph = fx.Graph()
    given = [graph.placeholder(name, None, None) for name in takes]
    arrives = graph.call_function(torch.cat, (given[0], dim)) if feed is None else given[feed]
    out: Any = graph.call_module("base", (arrives,))
    return _made(graph, (out, None) if pair else out, {"base": module}, "Route")


def gated(module: nn.Module) -> nn.Module:
    """Add what a module gives to what it takes, through a gate that starts at zero: the identity, then.

    The module is held as `block`, the gate is one parameter (Bachlechner et al., 2020, ReZero).
    """
    import torch
    from torch import fx, nn

    graph = fx.Graph()
    given = graph.placeholder("x")
    gate = graph.get_attr("gate")
    scaled = graph.call_function(operator.mul, (gate, graph.call_module("block", (given,))))
    graph.output(graph.call_function(operator.add, (given, scaled)))
    root = nn.Module()
    root.add_module("block", module)
    like = next((one for one in module.parameters() if one.is_floating_point()), torch.zeros(()))
    root.register_parameter("gate", nn.Parameter(torch.zeros((), dtype=like.dtype, device=like.device)))
    return fx.GraphModule(root, graph, class_name="Gated")


def _made(graph: fx.Graph, out: Any, parts: dict[str, nn.Module], kind: str) -> nn.Module:
    from torch import fx, nn

    graph.output(out)
    root = nn.Module()
    for name, part in parts.items():
        root.add_module(name, part)
    return fx.GraphModule(root, graph, class_name=kind)
