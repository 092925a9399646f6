"""Layers in two factors: what comes nearest to a trained convolution or linear layer at less cost."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["low_rank", "separable"]


def separable(old: Any, multiplier: int) -> tuple[nn.Module, float] | None:
    """Give a depthwise and a pointwise convolution for one that mixes space and channels.

    Of each input channel the kernel is a matrix `[outputs, k·k]`; its `multiplier` largest singular pairs are the
    best approximation of that rank in the Frobenius norm (Eckart and Young, 1936), and the channels do not meet
    (Guo et al., 2018, network decoupling). Stride, padding, dilation and groups stand in the depthwise one, the
    bias in the pointwise one.

    Returns:
        the pair as a Sequential, and the share of the kernels' squared norm that it keeps; None where nothing
        would be gained: a pointwise or depthwise convolution.
    """
    from torch import nn

    if all(size == 1 for size in old.kernel_size) or old.groups == old.in_channels:
        return None
    kind: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(old.kernel_size)]
    wide = old.in_channels * multiplier
    spatial = kind(
        old.in_channels,
        wide,
        old.kernel_size,
        old.stride,
        old.padding,
        old.dilation,
        groups=old.in_channels,
        bias=False,
        padding_mode=old.padding_mode,
        device="meta",
    )
    mixing = kind(wide, old.out_channels, 1, groups=old.groups, bias=False, device="meta")
    kept = _hold_factors(old, spatial, mixing, multiplier)
    mixing.register_parameter("bias", _copied(old.bias))
    return nn.Sequential(OrderedDict(depthwise=spatial, pointwise=mixing)), kept


def _hold_factors(old: Any, spatial: Any, mixing: Any, rank: int) -> float:
    weight = old.weight.detach()
    groups, inside = old.groups, old.in_channels // old.groups
    rows = weight.reshape(groups, -1, inside, weight[0, 0].numel()).transpose(1, 2).flatten(0, 1)
    left, right, kept = _factors(rows, min(rank, *rows.shape[1:]))
    left, right = _padded(left, rank, 2), _padded(right, rank, 1)
    outside = left.reshape(groups, inside, -1, rank).permute(0, 2, 1, 3).reshape(mixing.weight.shape)
    spatial.weight = _parameter(right.reshape(spatial.weight.shape), old.weight)
    mixing.weight = _parameter(outside, old.weight)
    return kept


def _padded(factor: Tensor, rank: int, dim: int) -> Tensor:
    """Fill up with zeros where there are fewer singular pairs than asked for."""
    import torch

    lacks = rank - factor.shape[dim]
    shape = [*factor.shape[:dim], lacks, *factor.shape[dim + 1 :]]
    return torch.cat([factor, factor.new_zeros(shape)], dim) if lacks else factor


def low_rank(old: Any, rank: int) -> tuple[nn.Module, float] | None:
    """Give two linear layers with `rank` features between for one, by its truncated singular value decomposition.

    That is the best approximation of this rank in the Frobenius norm (Eckart and Young, 1936).

    Returns:
        the pair as a Sequential, and the share of the weight's squared norm that it keeps; None where the two
        would hold no fewer weights than the one.
    """
    from torch import nn

    if rank * (old.in_features + old.out_features) >= old.in_features * old.out_features:
        return None
    left, right, kept = _factors(old.weight.detach(), rank)
    down = nn.Linear(old.in_features, rank, bias=False, device="meta")
    up = nn.Linear(rank, old.out_features, bias=False, device="meta")
    down.weight, up.weight = _parameter(right, old.weight), _parameter(left, old.weight)
    up.register_parameter("bias", _copied(old.bias))
    return nn.Sequential(OrderedDict(down=down, up=up)), kept


def _factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """Factor `[…, m, n]` into `[…, m, rank]` and `[…, rank, n]` of equal norms, and say what share they keep."""
    import torch

    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    whole = values.square().sum()
    values = values[..., :rank]
    root = values.sqrt()
    kept = 1.0 if matrix.is_meta or not whole else float(values.square().sum() / whole)
    return left[..., :rank] * root.unsqueeze(-2), right[..., :rank, :] * root.unsqueeze(-1), kept


def _parameter(tensor: Tensor, like: nn.Parameter) -> nn.Parameter:
    from torch import nn

    return nn.Parameter(tensor.contiguous().to(like.dtype), requires_grad=like.requires_grad)


def _copied(bias: nn.Parameter | None) -> nn.Parameter | None:
    from torch import nn

    return None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
