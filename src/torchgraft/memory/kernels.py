"""What a GPU computes otherwise than a CPU, as far as it changes what is kept: told to fake tensors on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["AsOnGpu"]


class AsOnGpu(TorchFunctionMode):
    """As a context, dropout keeps a mask of bytes, and attention with dropout keeps no matrix of it.

    On a CPU, dropout keeps a mask of the activations' own number format, and attention with dropout takes the
    plain way, whose memory grows with the square of the length.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, or what stands for it on a GPU."""
        given = dict(kwargs or {})
        if func is functional.dropout:
            return _dropout(*args, **given)
        if func is functional.scaled_dot_product_attention:
            given["dropout_p"] = 0.0
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
            given = {name: one for name, one in given.items() if not (name == "dropout_p" and len(args) > 4)}
        return func(*args, **given)


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if not training or p == 0:
        return functional.dropout(input, p, training, inplace)
    return torch.native_dropout(input, p, True)[0]
