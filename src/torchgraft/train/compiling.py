"""The model by torch.compile; what the compiler can't do is told in our words."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from torchgraft.errors import TrainError

__all__ = ["compiled"]

_COMPILER = ("torch._dynamo", "torch._inductor")


def compiled(model: nn.Module) -> Any:
    """Give what is called in the place of a model: its forward pass, compiled when it is first called.

    The model itself, its names and its state dict stay as they are.
    """
    run = torch.compile(model)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except Exception as error:
            if type(error).__module__.startswith(_COMPILER):
                raise _refused(error) from error
            raise

    return call


def _refused(error: Exception) -> TrainError:
    line = next((one.strip() for one in str(error).splitlines() if one.strip()), type(error).__name__)
    return TrainError(
        f"torch.compile can't compile this model: {line}",
        where="train.compile",
        hint="leave compile out, or install a C++ compiler where that is what it misses",
    )
