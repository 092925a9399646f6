"""Resize: other input or output sizes of one layer, keeping the weights that overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, PrivateAttr, model_validator

from torchgraft.edits.base import Edit
from torchgraft.edits.surgery import twin
from torchgraft.errors import EditError
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.edits.surgery import Surgery

__all__ = ["SIZES", "Resize", "depthwise", "resized"]


class Resize(Edit):
    """Give a convolution, linear layer, norm, embedding or attention of torch other sizes.

    What both sizes share keeps its weights. New input slices start at zero, so that what the layer computed
    from the old inputs stays; new outputs are drawn as torch draws them. A norm has one size, its inputs. Where
    the groups of a convolution no longer fit, it gets fewer that compute the same from the old inputs.

    Attributes:
        at: the layer.
        inputs: how many channels or features it takes.
        outputs: how many it gives.
        drops: how many of its old weights have no place any more; written when the edit is applied.
    """

    at: str
    inputs: Count | None = None
    outputs: Count | None = None
    drops: Annotated[int, Field(ge=0)] = 0
    _trained: bool = PrivateAttr(default=True)

    @property
    def trained(self) -> bool:
        """Whether the layer is one of the base's, whose weights are worth something."""
        return self._trained

    def untrained(self) -> Self:
        """Say that the layer is new, so that nothing is lost with its weights."""
        made = self.model_copy()
        made._trained = False
        return made

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
            plain = resized(old, self.inputs, self.outputs, self.at)
        first = next((tensor for tensor in old.parameters()), None)
        if first is not None:
            plain = plain.to(device=first.device, dtype=first.dtype).requires_grad_(first.requires_grad)
        kept = _copy_overlap(old, plain)
        surgery.put(self.at, _dressed(old, plain, self.at))
        surgery.added.pop()
        held = sum(parameter.numel() for parameter in old.parameters())
        return self.model_copy(update={"drops": max(held - kept, 0) if self.trained else 0})

    def sentence(self) -> str:
        """Say what the sizes are now."""
        parts = [f"{self.inputs} inputs" if self.inputs else "", f"{self.outputs} outputs" if self.outputs else ""]
        return f"{self.at} is resized to {' and '.join(part for part in parts if part)}"


SIZES = frozenset(
    {"in_features", "out_features", "in_channels", "out_channels", "groups", "num_embeddings", "embedding_dim"}
    | {"num_features", "num_channels", "num_groups", "normalized_shape"}
    | {"embed_dim", "kdim", "vdim", "num_heads", "head_dim"}
)
"""Attributes that say how large a layer is."""


def _dressed(old: nn.Module, plain: nn.Module, path: str) -> nn.Module:
    """Give a twin of the old layer, whatever its class, with the sizes and tensors of the plain one."""
    made = twin(old, path)
    for name in SIZES:
        if name in vars(plain):
            vars(made)[name] = vars(plain)[name]
    made._parameters.update(plain._parameters)
    made._buffers.update(plain._buffers)
    made._modules.update({name: part for name, part in plain._modules.items() if name in made._modules})
    return made


def resized(old: nn.Module, inputs: int | None, outputs: int | None, path: str) -> nn.Module:
    """Build a plain layer of torch with the new sizes, newly drawn.

    Raises:
        EditError: the layer is of no kind that has sizes.
    """
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
    shape = (*old.normalized_shape[:-1], inputs or outputs)
    return {"normalized_shape": shape, "eps": old.eps, "elementwise_affine": affine, "bias": bias}


def _rms_norm(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    shape = (*old.normalized_shape[:-1], inputs or outputs)
    return {"normalized_shape": shape, "eps": old.eps, "elementwise_affine": old.elementwise_affine}


def _group_norm(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    size = inputs or outputs or old.num_channels
    groups = max(n for n in range(1, old.num_groups + 1) if size % n == 0)
    return {"num_groups": groups, "num_channels": size, "eps": old.eps, "affine": old.affine}


def _embedding(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    sizes = {"num_embeddings": inputs or old.num_embeddings, "embedding_dim": outputs or old.embedding_dim}
    return {**sizes, "padding_idx": old.padding_idx}


def _attention(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    """Keep the width of a head where the new size allows it, so that the old heads stay; else their number."""
    size = inputs or outputs or old.embed_dim
    if size % old.head_dim and size % old.num_heads:
        raise EditError(
            f"{size} features can be parted neither into heads of {old.head_dim} nor into {old.num_heads} heads",
            where="attention",
            hint="project them to what the attention takes",
        )
    heads = size // old.head_dim if size % old.head_dim == 0 else old.num_heads
    bias = old.in_proj_bias is not None
    return {
        "embed_dim": size,
        "num_heads": heads,
        "bias": bias,
        "dropout": old.dropout,
        "batch_first": old.batch_first,
    }


def _convolution(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    """Keep the geometry; a depthwise convolution stays depthwise, so its outputs follow its inputs."""
    times = old.out_channels // old.in_channels
    follows = depthwise(old) and (times == 1 or outputs is None)
    inputs, outputs, groups = inputs or old.in_channels, outputs or old.out_channels, old.groups
    if follows:
        groups = inputs = inputs if inputs != old.in_channels or times > 1 else outputs
        outputs = inputs * times
    elif groups > 1:
        groups = _groups(old, inputs, outputs)
    kept = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    sizes = {"in_channels": inputs, "out_channels": outputs, "groups": groups, "bias": old.bias is not None}
    return {**sizes, **{name: getattr(old, name) for name in kept}}


def depthwise(old: Any) -> bool:
    """Tell whether every input channel of a convolution has outputs of its own."""
    return bool(old.groups > 1 and old.groups == old.in_channels and old.out_channels % old.in_channels == 0)


def _groups(old: Any, inputs: int, outputs: int) -> int:
    """Choose groups that hold every old one whole: as wide as before, or so many times wider."""
    wide = old.in_channels // old.groups, old.out_channels // old.groups
    for times in range(1, old.groups):
        side = wide[0] * times, wide[1] * times
        if not inputs % side[0] and not outputs % side[1] and inputs // side[0] == outputs // side[1]:
            return int(inputs // side[0])
    return 1


_KINDS: dict[str, Callable[[Any, int | None, int | None], dict[str, Any]]] = {
    "Linear": _linear,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "Conv3d": _convolution,
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "BatchNorm3d": _batch_norm,
    "SyncBatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "GroupNorm": _group_norm,
    "Embedding": _embedding,
    "MultiheadAttention": _attention,
}


def _copy_overlap(old: nn.Module, new: nn.Module) -> int:
    """Copy what both layers hold, and count the old parameters that found a place."""
    import torch

    theirs, trained = old.state_dict(), dict(old.named_parameters())
    kept = 0
    with torch.no_grad():
        for name, tensor in new.state_dict().items():
            if name not in theirs or tensor.dim() != theirs[name].dim():
                continue
            count = _copied(old, new, name, theirs[name], tensor)
            kept += count if name in trained else 0
    return kept


def _copied(old: Any, new: Any, name: str, source: Tensor, target: Tensor) -> int:
    if name.startswith("in_proj"):  # query, key and value lie below one another
        pairs = zip(source.chunk(3), target.chunk(3), strict=True)
        return sum(_copy(one, other) for one, other in pairs)
    if name == "weight" and getattr(old, "groups", 1) > 1 and getattr(new, "groups", 1) != old.groups:
        return _copy_groups(source, target, old.groups, new.groups)
    return _copy(source, target)


def _copy(old: Tensor, new: Tensor) -> int:
    shared = tuple(slice(min(ours, theirs)) for ours, theirs in zip(new.shape, old.shape, strict=True))
    if new.device.type != "meta":
        if new.dim() > 1 and new.shape[1] > old.shape[1]:
            new[: old.shape[0], old.shape[1] :].zero_()
        new[shared].copy_(old[shared])
    return old[shared].numel()


def _copy_groups(old: Tensor, new: Tensor, groups: int, now: int) -> int:
    """Place each old group on the diagonal of the weight that has `now` groups; `[out, in/groups, …]`."""
    rows, columns = old.shape[0] // groups, old.shape[1]
    high, wide = new.shape[0] // now, new.shape[1]
    kept = 0
    if new.device.type != "meta":
        new[: old.shape[0]].zero_()
    for number in range(groups):
        top = number * rows
        left = number * columns - (top // high) * wide if high else 0
        part = new[top : top + rows, max(left, 0) : max(left, 0) + columns]
        source = old[top : top + part.shape[0], :, ...][:, : part.shape[1]]
        if left >= 0 and part.shape == source.shape:
            kept += source.numel()
            if new.device.type != "meta":
                part.copy_(source)
    return kept
