"""Resize: other input or output sizes of one layer, keeping the weights that overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from torchgraft.edits.base import Edit
from torchgraft.edits.surgery import twin
from torchgraft.errors import EditError
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.edits.surgery import Surgery

__all__ = ["Resize"]


class Resize(Edit):
    """Give a convolution, linear layer or norm other sizes.

    What both sizes share keeps its weights. New input slices start at zero, so that what the layer computed
    from the old inputs stays; new outputs are drawn as torch draws them. A norm has one size, its inputs.
    """

    at: str
    inputs: Count | None = None
    outputs: Count | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.inputs is None and self.outputs is None:
            raise ValueError("a resize names inputs, outputs or both")
        return self

    def apply(self, surgery: Surgery) -> Resize:
        """Build the layer anew and copy what overlaps; the old tensors are not written."""
        import torch

        old = surgery.module(self.at)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(surgery.seed)
            plain = _plain(old, self.inputs, self.outputs, self.at)
        first = next((tensor for tensor in old.parameters()), None)
        if first is not None:
            plain = plain.to(device=first.device, dtype=first.dtype).requires_grad_(first.requires_grad)
        _copy_overlap(old, plain)
        surgery.put(self.at, _dressed(old, plain, self.at))
        surgery.added.pop()
        return self

    def sentence(self) -> str:
        """Say what the sizes are now."""
        parts = [f"{self.inputs} inputs" if self.inputs else "", f"{self.outputs} outputs" if self.outputs else ""]
        return f"{self.at} is resized to {' and '.join(part for part in parts if part)}"


_SIZES = frozenset(
    {"in_features", "out_features", "in_channels", "out_channels", "groups"}
    | {"num_features", "num_channels", "num_groups", "normalized_shape"}
)


def _dressed(old: nn.Module, plain: nn.Module, path: str) -> nn.Module:
    """Give a twin of the old layer, whatever its class, with the sizes and tensors of the plain one."""
    made = twin(old, path)
    for name in _SIZES:
        if name in vars(plain):
            vars(made)[name] = vars(plain)[name]
    made._parameters.update(plain._parameters)
    made._buffers.update(plain._buffers)
    return made


def _plain(old: nn.Module, inputs: int | None, outputs: int | None, path: str) -> nn.Module:
    """Build a plain layer of torch with the new sizes."""
    from torch import nn

    for cls in type(old).__mro__:
        if cls is getattr(nn, cls.__name__, None) and cls.__name__ in _KINDS:
            made: nn.Module = cls(**_KINDS[cls.__name__](old, inputs, outputs))
            return made
    raise EditError(
        f"a {type(old).__name__} has no sizes that can be changed",
        where=path,
        hint="replace it with a module of your own",
    )


def _linear(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    sizes = {"in_features": inputs or old.in_features, "out_features": outputs or old.out_features}
    return {**sizes, "bias": old.bias is not None}


def _batch_norm(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    kept = ("eps", "momentum", "affine", "track_running_stats")
    return {"num_features": inputs or outputs, **{name: getattr(old, name) for name in kept}}


def _layer_norm(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    affine, bias = old.elementwise_affine, getattr(old, "bias", None) is not None
    return {"normalized_shape": inputs or outputs, "eps": old.eps, "elementwise_affine": affine, "bias": bias}


def _group_norm(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    size = inputs or outputs or old.num_channels
    groups = max(n for n in range(1, old.num_groups + 1) if size % n == 0)
    return {"num_groups": groups, "num_channels": size, "eps": old.eps, "affine": old.affine}


def _convolution(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    """Keep the geometry; a depthwise convolution stays depthwise, groups that do not divide become one."""
    inputs, outputs, groups = inputs or old.in_channels, outputs or old.out_channels, old.groups
    if groups == old.in_channels == old.out_channels:
        groups = inputs = outputs = inputs if inputs != old.in_channels else outputs
    elif inputs % groups or outputs % groups:
        groups = 1
    kept = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    sizes = {"in_channels": inputs, "out_channels": outputs, "groups": groups, "bias": old.bias is not None}
    return {**sizes, **{name: getattr(old, name) for name in kept}}


_KINDS: dict[str, Callable[[Any, int | None, int | None], dict[str, Any]]] = {
    "Linear": _linear,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "Conv3d": _convolution,
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "BatchNorm3d": _batch_norm,
    "LayerNorm": _layer_norm,
    "GroupNorm": _group_norm,
}


def _copy_overlap(old: nn.Module, new: nn.Module) -> None:
    import torch

    theirs = old.state_dict()
    with torch.no_grad():
        for name, tensor in new.state_dict().items():
            if name in theirs and tensor.dim() == theirs[name].dim() and tensor.device.type != "meta":
                _copy(theirs[name], tensor)


def _copy(old: Tensor, new: Tensor) -> None:
    if new.dim() > 1 and new.shape[1] > old.shape[1]:
        new[: old.shape[0], old.shape[1] :].zero_()
    shared = tuple(slice(min(ours, theirs)) for ours, theirs in zip(new.shape, old.shape, strict=True))
    new[shared].copy_(old[shared])
