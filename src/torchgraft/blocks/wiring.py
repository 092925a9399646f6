"""Small graphs of torch.fx: how blocks are joined where a Sequential can't say it, as plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["doubled_sigmoid", "gated", "residual", "wired"]


def wired(name: str, forward: Callable[[Any, Any], Any], **parts: Any) -> nn.Module:
    """Write down what `forward(net, x)` does with the parts as a graph of torch.fx, and give its module.

    Args:
        name: the class name of the module.
        forward: the parts are attributes of its first argument; it is run once, on a stand-in for `x`.
        parts: modules and parameters, by the names under which they are held.
    """
    from torch import fx, nn

    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return forward(self, x)

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return True

    net = Net()
    for key, part in parts.items():
        setattr(net, key, part)
    graph = Tracer().trace(net)
    graph._tracer_cls = None  # no class of torchgraft stays behind in the model
    return fx.GraphModule(net, graph, class_name=name)


def residual(body: nn.Module) -> nn.Module:
    """Add what a module gives to what it takes (He et al., 2016); it is held as `body`."""
    return wired("Residual", lambda net, x: x + net.body(_kept(body, x)), body=body)


def gated(module: nn.Module) -> nn.Module:
    """Add what a module gives to what it takes, through a gate that starts at zero: the identity, then.

    The module is held as `block`, the gate is one parameter (Bachlechner et al., 2020, ReZero).
    """
    import torch
    from torch import nn

    like = next((one for one in module.parameters() if one.is_floating_point()), torch.zeros(()))
    gate = nn.Parameter(torch.zeros((), dtype=like.dtype, device=like.device))
    return wired("Gated", lambda net, x: x + net.gate * net.block(_kept(module, x)), gate=gate, block=module)


def doubled_sigmoid() -> nn.Module:
    """Build a gate from 0 to 2, which is exactly 1 at 0 (Swietojanski and Renals, 2014)."""
    return wired("DoubledSigmoid", lambda _, x: 2 * x.sigmoid())


def _kept(module: nn.Module, x: Any) -> Any:
    """Give the tensor, or a copy of it for a module that may overwrite what it is given."""
    return x.clone() if any(getattr(part, "inplace", False) for part in module.modules()) else x
