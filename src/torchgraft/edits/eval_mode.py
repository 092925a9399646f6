"""Eval mode: norms and dropout of a part that stay as in evaluation, whatever `model.train()` says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.schema import Places
from torchgraft.select import modules
from torchgraft.surgery.journal import inside

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["EvalMode", "moving", "stilled"]


class EvalMode(Edit):
    """Make the norms in `at` use their running statistics for good, and switch dropout in `at` off for good.

    `module.eval()` is undone by the next `model.train()`; this is not, in any training loop. BatchNorm becomes
    torchvision's FrozenBatchNorm2d (timm's, where it holds an activation): its statistics, scale and shift do not
    move any more, its keys stay, and no hook is left behind. Dropout becomes Identity, and rates that modules hold
    as plain numbers, such as the attention's, become 0.
    """

    at: Places

    def apply(self, surgery: Surgery) -> EvalMode:
        """Put frozen norms and identities where norms and dropout are; they share the old tensors."""
        homes = modules(surgery.model, self.at, roles=surgery.roles)
        if not stilled(surgery, homes):
            raise EditError(
                f"nothing in {', '.join(self.at)} differs between training and evaluation",
                where=", ".join(self.at),
                hint="select modules that hold BatchNorm or Dropout; freeze(…) stops parameters",
            )
        return self

    def sentence(self) -> str:
        """Say what stays in evaluation mode."""
        more = f" and {len(self.at) - 3} more" if self.at[3:] else ""
        return f"evaluation mode for good: {', '.join(self.at[:3])}{more}"


def stilled(surgery: Surgery, homes: Iterable[str]) -> int:
    """Put what stands still in the place of all norms and dropout in some modules, and say how many they were."""
    found = inside(surgery.model, homes)
    still = {module: made for path, module in found.items() if (made := _still(module, path)) is not None}
    whole = {*surgery.model.children()} <= {*found.values()}
    surgery.trade(still)
    rates = [
        (module, name)
        for module in (*found.values(), *((surgery.model,) if whole else ()))
        if module not in still
        for name, rate in vars(module).items()
        if "drop" in name and type(rate) is float and rate > 0
    ]
    for module, name in rates:
        surgery.set(module, name, 0.0)
    return len(still) + len(rates)


def moving(module: nn.Module) -> nn.Module | None:
    """Give the BatchNorm that a still norm was made of, around the same tensors; None where there was none.

    What torchvision or timm built with frozen norms stays as it is: it has no momentum to go on with.
    """
    from torch import nn
    from torchvision.ops import FrozenBatchNorm2d

    held: Any = module
    if not hasattr(module, "momentum") or not hasattr(module, "num_batches_tracked"):
        return None
    if type(module).__name__ == "FrozenBatchNormAct2d":
        from timm.layers import BatchNormAct2d

        made: Any = BatchNormAct2d(len(held.running_mean), eps=held.eps, momentum=held.momentum)
        made.drop, made.act = held.drop, held.act
    elif type(module).__name__ in ("FrozenBatchNorm1d", "FrozenBatchNorm3d"):
        kind = {"1d": nn.BatchNorm1d, "3d": nn.BatchNorm3d}[type(module).__name__[-2:]]
        made = kind(len(held.running_mean), eps=held.eps, momentum=held.momentum, affine=held.affine)
    elif isinstance(module, FrozenBatchNorm2d):
        made = nn.BatchNorm2d(len(held.running_mean), eps=held.eps, momentum=held.momentum, affine=held.affine)
    else:
        return None
    if made.affine:
        made.weight, made.bias = nn.Parameter(held.weight), nn.Parameter(held.bias)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(made, name, getattr(held, name))
    whole: nn.Module = made
    return whole


def _still(module: nn.Module, path: str) -> nn.Module | None:
    """Give what stands still in the place of a module; None where training changes nothing in it."""
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
    from torch.nn.modules.dropout import _DropoutNd

    if isinstance(module, _DropoutNd) or type(module).__name__ in ("StochasticDepth", "DropPath"):
        rate = getattr(module, "drop_prob", getattr(module, "p", None))
        return None if rate == 0 else _undropped(module)
    if not isinstance(module, _NormBase) or module.running_mean is None:
        return None
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm3d)):
        return _computed(module)
    if not isinstance(module, _BatchNorm):
        raise EditError(
            f"there is no frozen form of {type(module).__name__} in plain PyTorch",
            where=path,
            hint="freeze(…) keeps it still in torchgraft's own training; in a loop of yours call "
            f"model.{path}.eval() after every model.train()",
        )
    return _frozen(module)


def _undropped(dropout: nn.Module) -> nn.Module:
    """Give an Identity that tells a rate of 0: the attention of timm and transformers reads it off its dropout."""
    from torch import nn

    made: Any = nn.Identity()
    for name in ("p", "drop_prob"):
        if name in vars(dropout):
            setattr(made, name, 0.0)
    whole: nn.Module = made
    return whole


def _computed(norm: Any) -> nn.Module:
    """Give the frozen twin of a BatchNorm of other dimensions: the same tensors under the same keys."""
    from torch import fx, nn
    from torch.nn import functional

    root = nn.Module()
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        held = getattr(norm, name)
        if held is not None:
            root.register_buffer(name, held.detach())
    graph = fx.Graph()
    given = graph.placeholder("x")
    mean, var = graph.get_attr("running_mean"), graph.get_attr("running_var")
    scaled = {name: graph.get_attr(name) for name in ("weight", "bias") if getattr(norm, name) is not None}
    settings = {**scaled, "training": False, "eps": norm.eps}
    graph.output(graph.call_function(functional.batch_norm, (given, mean, var), settings))
    made = fx.GraphModule(root, graph, class_name=f"Frozen{type(norm).__name__}")
    made.register_buffer("num_batches_tracked", norm.num_batches_tracked)
    made.momentum, made.affine, made.eps = norm.momentum, norm.affine, norm.eps
    return made


def _frozen(norm: Any) -> nn.Module:
    """Give the frozen twin of a BatchNorm over `[N, C, H, W]`, which holds the same tensors as buffers."""
    import torch
    from torchvision.ops import FrozenBatchNorm2d

    if hasattr(norm, "act") and hasattr(norm, "drop"):  # timm's BatchNormAct2d, a norm and an activation in one
        from timm.layers import FrozenBatchNormAct2d

        made = FrozenBatchNormAct2d(norm.num_features, norm.eps)
        made.drop, made.act = norm.drop, norm.act
    else:
        made = FrozenBatchNorm2d(norm.num_features, norm.eps)
    ones = torch.ones_like(norm.running_mean)
    made.weight = ones if norm.weight is None else norm.weight.detach()
    made.bias = torch.zeros_like(ones) if norm.bias is None else norm.bias.detach()
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    # Kept beside the state dict, so that unfreeze(moving=True) can go on where the norm stopped.
    made.momentum, made.affine = norm.momentum, norm.affine
    made.register_buffer("num_batches_tracked", norm.num_batches_tracked, persistent=False)
    whole: nn.Module = made
    return whole
