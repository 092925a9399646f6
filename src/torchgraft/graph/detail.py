"""The settings of a module in a few signs: `3×3, 64 → 128, stride 2`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

__all__ = ["detail", "shape_of"]


def detail(module: nn.Module | None) -> str:
    """Write the settings of a module of torch in short; of others the shape of their weight."""
    for kinds, write in _WRITERS:
        if isinstance(module, kinds):
            return write(module)
    weight = getattr(module, "weight", None)
    return shape_of(weight.shape) if isinstance(weight, nn.Parameter) else ""


def shape_of(sizes: Iterable[int]) -> str:
    """Write sizes as `64×3×7×7`."""
    return "×".join(map(str, sizes))


def _convolution(one: Any) -> str:
    parts = [shape_of(one.kernel_size), f"{one.in_channels} → {one.out_channels}"]
    parts += _unless(one.stride, 1, "stride") + _unless(one.dilation, 1, "dilation")
    depthwise = one.groups == one.in_channels and one.groups > 1
    parts += ["depthwise"] if depthwise else [f"{one.groups} groups"] if one.groups > 1 else []
    return ", ".join(parts)


def _pool(one: Any) -> str:
    size = _sizes(one.kernel_size)
    stride = [] if one.stride in (None, one.kernel_size) else _unless(one.stride, 0, "stride")
    return ", ".join([f"{size}×{size}" if size.isdigit() else size, *stride])


def _adaptive(one: Any) -> str:
    return f"to {_sizes(one.output_size)}"


def _attention(one: Any) -> str:
    return f"{one.embed_dim}, {one.num_heads} heads"


def _recurrent(one: Any) -> str:
    layers = [f"{one.num_layers} layers"] if one.num_layers > 1 else []
    return ", ".join(
        [f"{one.input_size} → {one.hidden_size}", *layers, *(["both ways"] if one.bidirectional else [])]
    )


def _upsample(one: Any) -> str:
    return f"to {_sizes(one.size)}" if one.size is not None else f"by {_sizes(one.scale_factor)}"


def _unless(given: Any, usual: int, name: str) -> list[str]:
    text = _sizes(given)
    return [] if text == str(usual) else [f"{name} {text}"]


def _sizes(given: Any) -> str:
    """Write one size, or several that differ."""
    several = list(given) if isinstance(given, (tuple, list)) else [given]
    texts = [f"{one:g}" if isinstance(one, float) else str(one) for one in several]
    return texts[0] if len(set(texts)) == 1 else "×".join(texts)


_WRITERS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (nn.modules.conv._ConvNd, _convolution),
    (nn.Linear, lambda one: f"{one.in_features} → {one.out_features}"),
    ((nn.LayerNorm, nn.RMSNorm), lambda one: shape_of(one.normalized_shape)),
    (nn.GroupNorm, lambda one: f"{one.num_channels}, {one.num_groups} groups"),
    ((nn.modules.batchnorm._NormBase), lambda one: str(one.num_features)),
    ((nn.Embedding, nn.EmbeddingBag), lambda one: f"{one.num_embeddings} × {one.embedding_dim}"),
    (nn.modules.dropout._DropoutNd, lambda one: f"p {one.p:g}"),
    (nn.MultiheadAttention, _attention),
    ((nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd), _pool),
    ((nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd), _adaptive),
    (nn.RNNBase, _recurrent),
    (nn.Upsample, _upsample),
    (nn.PixelShuffle, lambda one: f"by {one.upscale_factor}"),
)
