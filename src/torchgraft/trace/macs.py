"""Multiply-accumulates of one operation, from its arguments and its result.

The same counts as torch.utils.flop_counter (whose flops are two per multiply-accumulate), read off at the
level of torch functions, where they cost a table look-up. Products that torch counts only for some kernels or
not at all are counted alike everywhere: with a vector, in place, of a bilinear layer, a deformable convolution,
recurrent layers on the CPU. Products without a sum (outer, kron) are none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count"]

_Args = tuple[Any, ...]
_Named = dict[str, Any]
_Formula = Callable[[_Args, _Named, Any], int]


def count(func: Any, args: _Args, kwargs: _Named) -> tuple[Any, int]:
    """Run an operation and count its multiply-accumulates.

    Returns:
        what the operation gave, and its multiply-accumulates (0 for what has no products to count).
    """
    name = getattr(func, "__name__", "")
    formula = _FORMULAS.get(name)
    if formula is not None:
        result = func(*args, **kwargs)
        return result, formula(args, kwargs, result)
    if name in _COMPOSITE:
        with FlopCounterMode(display=False) as counter:
            result = func(*args, **kwargs)
        return result, counter.get_total_flops() // 2
    result = func(*args, **kwargs)
    formula = _FORMULAS.get(name.partition(".")[0]) if "." in name else None  # torch.ops.aten.mm: `mm.default`
    return result, formula(args, kwargs, result) if formula else 0


def _argument(args: _Args, kwargs: _Named, place: int, *names: str) -> Any:
    """Give an argument by its place or by one of its names; None where it was left out."""
    if len(args) > place:
        return args[place]
    return next((kwargs[name] for name in names if name in kwargs), None)


def _convolution(args: _Args, kwargs: _Named, result: Tensor) -> int:
    if _argument(args, kwargs, 6, "transposed") is True:  # torch.convolution says which; conv2d has groups there
        return _transposed(args, kwargs, result)
    weight = _argument(args, kwargs, 1, "weight")
    return int(result.numel() * math.prod(weight.shape[1:]))


def _time_first(args: _Args, kwargs: _Named, result: Tensor) -> int:
    return int(result.numel() * math.prod(_argument(args, kwargs, 1, "weight").shape[:2]))


def _transposed(args: _Args, kwargs: _Named, result: Tensor) -> int:
    given, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    return int(given.numel() * math.prod(weight.shape[1:]))


def _linear(args: _Args, kwargs: _Named, result: Tensor) -> int:
    return result.numel() * int(_argument(args, kwargs, 1, "weight").shape[-1])


def _bilinear(args: _Args, kwargs: _Named, result: Tensor) -> int:
    return int(result.numel() * math.prod(_argument(args, kwargs, 2, "weight").shape[1:]))


def _product(args: _Args, kwargs: _Named, result: Tensor) -> int:
    return result.numel() * int(_argument(args, kwargs, 0, "input", "self", "mat1", "A").shape[-1])


def _reverse_product(args: _Args, kwargs: _Named, result: Tensor) -> int:
    return result.numel() * int(args[0].shape[-2 if args[0].dim() > 1 else -1])


def _added_product(args: _Args, kwargs: _Named, result: Tensor) -> int:
    return result.numel() * int(_argument(args, kwargs, 1, "mat1", "batch1", "mat").shape[-1])


def _summed_products(args: _Args, kwargs: _Named, result: Tensor) -> int:
    many = _argument(args, kwargs, 1, "batch1")
    return result.numel() * int(many.shape[0] * many.shape[-1])


def _attention(args: _Args, kwargs: _Named, result: Any) -> int:
    query, key = _argument(args, kwargs, 0, "query"), _argument(args, kwargs, 1, "key")
    gave = result if isinstance(result, Tensor) else result[0]
    rows = gave.numel() // max(gave.shape[-1], 1)
    return int(rows * key.shape[-2] * (query.shape[-1] + gave.shape[-1]))


def _attention_heads(args: _Args, kwargs: _Named, result: Any) -> int:
    """Count F.multi_head_attention_forward: three projections, the attention, and the projection out of it."""
    query, key, value = (_argument(args, kwargs, n, one) for n, one in enumerate(("query", "key", "value")))
    width = query.shape[-1]
    rows, extra = query.numel() // width, 0
    extra += _argument(args, kwargs, 7, "bias_k") is not None
    extra += bool(_argument(args, kwargs, 9, "add_zero_attn"))
    still = [_argument(args, kwargs, n, one) for n, one in ((21, "static_k"), (22, "static_v"))]
    projected = [query, *(one for one, kept in zip((key, value), still, strict=True) if kept is None)]
    length = (key.shape[0] if still[0] is None else still[0].shape[1]) + extra
    inside = sum(one.numel() for one in projected) * width
    return int(inside + rows * length * 2 * width + rows * width * width)


def _recurrent(args: _Args, kwargs: _Named, result: Any) -> int:
    """Count an RNN: every step of every sample meets every matrix once; a packed sequence has no padding."""
    given = args[0]
    return int(math.prod(given.shape[:-1]) * _matrices(args))


def _cell(args: _Args, kwargs: _Named, result: Any) -> int:
    return int(math.prod(args[0].shape[:-1]) * sum(one.numel() for one in args[2:4]))


def _matrices(args: _Args) -> int:
    """Add up the matrices in the flat list of an RNN's weights; the other list is of its states, `[L, N, H]`."""
    lists = [one for one in args if isinstance(one, (list, tuple))]
    return sum(one.numel() for held in lists for one in held if isinstance(one, Tensor) and one.dim() == 2)


_FORMULAS: Mapping[str, _Formula] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "deform_conv2d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "conv_tbc": _time_first,
    "linear": _linear,
    "bilinear": _bilinear,
    **dict.fromkeys(("matmul", "__matmul__", "linalg_matmul", "mm", "bmm"), _product),
    **dict.fromkeys(("mv", "dot", "vdot", "inner"), _product),
    **dict.fromkeys(("_int_mm", "_scaled_mm", "_grouped_mm", "grouped_mm"), _product),
    "__rmatmul__": _reverse_product,
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addmm_", "baddbmm_", "addmv_"), _added_product),
    **dict.fromkeys(("addbmm", "addbmm_"), _summed_products),
    **dict.fromkeys(("scaled_dot_product_attention", "flex_attention"), _attention),
    "multi_head_attention_forward": _attention_heads,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
}

_COMPOSITE = frozenset(
    {"einsum", "tensordot", "chain_matmul", "linalg_multi_dot", "cov", "corrcoef"}
    | {"matrix_power", "linalg_matrix_power", "pca_lowrank", "svd_lowrank"}
)
"""What chooses its products as it runs: counted by torch itself."""
