"""Modules of plain torch.fx around another: they take what it takes, where a Sequential would take one tensor."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from torchgraft.blocks.wiring import gated
from torchgraft.errors import EditError

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["Form", "beside", "chained", "gated", "passing", "routed", "scaled", "skipped", "takes_one"]

Form = Literal["tensor", "single", "pair"]
"""How a module gives its tensor: as it is, alone in a tuple, or in one with None."""


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


def beside(path: str, pair: Sequence[tuple[str, nn.Module]]) -> nn.Module:
    """Add what a module makes of another's first argument to what that one gives.

    Args:
        path: where they stand, for messages.
        pair: name and module of the old one and of the new one.

    Raises:
        EditError: the old one takes any number of arguments, so that no signature can be written down.
    """
    (base, old), (name, new) = pair
    graph, arguments, named = _arguments(old, path)
    first = arguments[0]
    if any(getattr(part, "inplace", False) for one in (old, new) for part in one.modules()):
        first = graph.call_method("clone", (first,))
    added = graph.call_module(name, (first,))
    out = graph.call_function(operator.add, (graph.call_module(base, tuple(arguments), named), added))
    return _made(graph, out, dict(pair), "Beside")


def scaled(module: nn.Module) -> nn.Module:
    """Multiply what a module gives by a gate that starts at zero; the module is held as `block`."""
    import torch
    from torch import nn

    from torchgraft.blocks.wiring import wired

    like = next((one for one in module.parameters() if one.is_floating_point()), torch.zeros(()))
    gate = nn.Parameter(torch.zeros((), dtype=like.dtype, device=like.device))
    return wired("Scaled", lambda net, x: net.gate * net.block(x), gate=gate, block=module)


def skipped(path: str, module: nn.Module, *, kind: Literal["residual", "gate"], starts: bool) -> nn.Module:
    """Let what a module f is given go past it; the module is held as `base`, the gate g is one parameter.

    Args:
        path: where it stands, for messages.
        module: f.
        kind: `residual` gives x + f(x), `gate` gives x + g·f(x) with g from 0.
        starts: give f(x) at first: g·x + f(x) with g from 0, or (1 - g)·x + g·f(x) with g from 1.

    Raises:
        EditError: it takes any number of arguments.
    """
    import torch
    from torch import fx, nn

    graph, arguments, named = _arguments(module, path)
    x = arguments[0]
    if any(getattr(part, "inplace", False) for part in module.modules()):
        x = graph.call_method("clone", (x,))
    y = graph.call_module("base", tuple(arguments), named)
    root = nn.Module()
    root.add_module("base", module)
    times, plus = (functools.partial(graph.call_function, one) for one in (operator.mul, operator.add))
    if kind == "residual" and not starts:
        graph.output(plus((x, y)))
        return fx.GraphModule(root, graph, class_name="Residual")
    root.register_parameter("gate", nn.Parameter(torch.tensor(1.0 if kind == "gate" and starts else 0.0)))
    gate = graph.get_attr("gate")
    if kind == "residual":
        graph.output(plus((y, times((gate, x)))))
    elif starts:
        rest = graph.call_function(operator.sub, (1, gate))
        graph.output(plus((times((gate, y)), times((rest, x)))))
    else:
        graph.output(plus((x, times((gate, y)))))
    return fx.GraphModule(root, graph, class_name="Gate" if kind == "gate" else "Residual")


def passing(form: Form) -> fx.GraphModule:
    """Give a module that takes anything and gives its first argument back: as it is, in a tuple, or with None."""
    from torch import fx, nn

    graph = fx.Graph()
    given = graph.placeholder("x")
    graph.placeholder("*args")
    graph.placeholder("**kwargs")
    forms: dict[str, Any] = {"tensor": given, "single": (given,), "pair": (given, None)}
    graph.output(forms[form])
    return fx.GraphModule(nn.Module(), graph, class_name="Pass")


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


def _made(graph: fx.Graph, out: Any, parts: dict[str, nn.Module], kind: str) -> nn.Module:
    from torch import fx, nn

    graph.output(out)
    root = nn.Module()
    for name, part in parts.items():
        root.add_module(name, part)
    return fx.GraphModule(root, graph, class_name=kind)
