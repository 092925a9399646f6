"""A network that a test finishes with its own forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Net(nn.Module):
    """Its parts are children; `forward(net, *given)` is handed over."""

    def __init__(self, forward: Any, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self._run = forward

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return self._run(self, *given)
