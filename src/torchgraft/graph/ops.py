"""Which tensor operations are worth a box, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchgraft.trace import Op

__all__ = ["is_heavy", "is_weighted", "sign"]

_JOINED: Mapping[str, str] = {
    **dict.fromkeys(("add", "add_", "__add__", "__iadd__", "__radd__", "iadd"), "+"),
    **dict.fromkeys(("sub", "sub_", "__sub__", "__isub__", "__rsub__", "rsub"), "−"),
    **dict.fromkeys(("mul", "mul_", "__mul__", "__imul__", "__rmul__", "multiply"), "×"),
    **dict.fromkeys(("div", "div_", "__truediv__", "__itruediv__", "true_divide"), "÷"),
    **dict.fromkeys(("cat", "concat", "concatenate", "hstack", "vstack"), "cat"),
    **dict.fromkeys(("maximum", "minimum", "stack", "where", "lerp"), ""),
}
"""Operations that matter where they bring two ways together; an empty sign is their own name."""

_ALONE: Mapping[str, str] = {
    "scaled_dot_product_attention": "attention",
    "multi_head_attention_forward": "attention",
    **dict.fromkeys(("matmul", "__matmul__", "__rmatmul__", "mm", "bmm"), "matmul"),
    **dict.fromkeys(("linear", "addmm", "baddbmm"), "linear"),
    **dict.fromkeys(("einsum", "bilinear", "embedding", "embedding_bag", "grid_sample", "affine_grid"), ""),
    **dict.fromkeys(("softmax", "log_softmax", "sigmoid", "tanh", "normalize", "cumsum"), ""),
    **dict.fromkeys(("relu", "relu_", "relu6", "gelu", "silu", "silu_", "elu", "selu", "celu", "mish"), ""),
    **dict.fromkeys(("leaky_relu", "prelu", "hardswish", "hardsigmoid", "hardtanh", "softplus", "glu"), ""),
    **dict.fromkeys(("sigmoid_", "tanh_", "leaky_relu_", "logsumexp", "norm"), ""),
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"), ""),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "argmax", "topk", "std", "var"), ""),
    **dict.fromkeys(("interpolate", "upsample", "pixel_shuffle", "pixel_unshuffle", "unfold", "fold"), ""),
    **dict.fromkeys(("flatten", "lstm", "gru", "rnn_tanh", "rnn_relu", "roi_align", "deform_conv2d"), ""),
    **{f"conv{end}d": "" for end in (1, 2, 3)},
    **{f"conv_transpose{end}d": "" for end in (1, 2, 3)},
    **{f"{way}_pool{end}d": "" for way in ("max", "avg", "adaptive_avg", "adaptive_max") for end in (1, 2, 3)},
}
"""Operations that matter by themselves."""

_WEIGHTED = (
    "linear",
    "addmm",
    "baddbmm",
    "bilinear",
    "embedding",
    "conv",
    "lstm",
    "gru",
    "rnn",
    "deform_conv",
    "prelu",
)
_COUNTS = frozenset({"argmax", "topk"})
"""Operations that matter although they give whole numbers."""


def is_weighted(op: Op) -> bool:
    """Tell whether the parameters that an operation reads are its weights, not something that flows in."""
    return op.name.startswith(_WEIGHTED) or op.name.endswith(("_norm", "_attention_forward"))


def is_heavy(op: Op) -> bool:
    """Tell whether an operation is more than arithmetic of single numbers."""
    return op.macs > 0 or _JOINED.get(op.name) == "cat" or op.name in ("softmax", "interpolate")


def sign(op: Op, dtype: str, ways: int) -> str:
    """Give what the box of an operation says; empty for one that is not drawn.

    Args:
        op: the operation.
        dtype: of what it gives: arithmetic of positions and masks is not drawn.
        ways: how many tensors it takes that come from somewhere.
    """
    if not ways and not op.params:
        return ""
    if not dtype.startswith(("float", "bfloat", "complex")) and op.name not in _COUNTS:
        return ""
    if op.name in _JOINED:
        return (_JOINED[op.name] or op.name) if ways > 1 else ""
    if op.name in _ALONE:
        return _ALONE[op.name] or op.name.rstrip("_")
    return op.name if op.macs else ""
