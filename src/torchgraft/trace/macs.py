"""Multiply-accumulates of one operation, from its arguments and its result.

The same counts as torch.utils.flop_counter (whose flops are two per multiply-accumulate), read off at the
level of torch functions, where they cost a table look-up. Composite operations are counted by torch itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count"]


def count(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, int]:
    """Run an operation and count its multiply-accumulates.

    Returns:
        what the operation gave, and its multiply-accumulates (0 for what has no products to count).
    """
    name = getattr(func, "__name__", "")
    if name in _COMPOSITE:
        with FlopCounterMode(display=False) as counter:
            result = func(*args, **kwargs)
        return result, counter.get_total_flops() // 2
    result = func(*args, **kwargs)
    formula = _FORMULAS.get(name)
    return result, formula(args, kwargs, result) if formula else 0


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs[name]


def _convolution(args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> int:
    weight = _argument(args, kwargs, 1, "weight")
    return int(result.numel() * math.prod(weight.shape[1:]))


def _transposed(args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> int:
    given, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    return int(given.numel() * math.prod(weight.shape[1:]))


def _linear(args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> int:
    return result.numel() * int(_argument(args, kwargs, 1, "weight").shape[-1])


def _product(args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> int:
    return result.numel() * int(args[0].shape[-1])


def _reverse_product(args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> int:
    return result.numel() * int(args[0].shape[-2 if args[0].dim() > 1 else -1])


def _added_product(args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> int:
    return result.numel() * int(args[1].shape[-1])


def _attention(args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> int:
    query, key = _argument(args, kwargs, 0, "query"), _argument(args, kwargs, 1, "key")
    scores = query.numel() // query.shape[-1] * key.shape[-2]
    return int(scores * query.shape[-1] + result.numel() * key.shape[-2])


_FORMULAS: dict[str, Callable[[tuple[Any, ...], dict[str, Any], Any], int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm"), _product),
    "__rmatmul__": _reverse_product,
    **dict.fromkeys(("addmm", "baddbmm"), _added_product),
    "scaled_dot_product_attention": _attention,
}

_COMPOSITE = frozenset(
    {"einsum", "tensordot", "bilinear", "multi_head_attention_forward", "deform_conv2d"}
    | {"lstm", "gru", "rnn_tanh", "rnn_relu"}
)
