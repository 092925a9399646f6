from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import nn

import torchgraft as tg

# The models of the tests are too small for more threads to pay, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")


class Snapshot:
    """Everything of a model that an edit could change: the tree by identity, tensors, flags, attributes."""

    def __init__(self, model: nn.Module) -> None:
        self.tree = [(path, id(module)) for path, module in model.named_modules(remove_duplicate=False)]
        self.order = [(path, list(module._modules)) for path, module in model.named_modules()]
        self.tensors = {name: (id(t), t.clone()) for name, t in model.state_dict(keep_vars=True).items()}
        self.flags = [(name, p.requires_grad) for name, p in model.named_parameters()]
        self.classes = [(path, type(module)) for path, module in model.named_modules()]
        self.hooks = [
            (path, [(kind, key, id(hook)) for kind in HOOKS for key, hook in getattr(module, kind).items()])
            for path, module in model.named_modules()
        ]
        self.dtypes = {name: (t.dtype, t.device) for name, t in model.state_dict(keep_vars=True).items()}
        self.training = [(path, module.training) for path, module in model.named_modules()]
        self.plain = [
            (path, {k: v for k, v in vars(module).items() if isinstance(v, (int, float, str, bool, tuple))})
            for path, module in model.named_modules()
        ]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Snapshot)
        told = ("tree", "order", "flags", "classes", "hooks", "dtypes", "training", "plain")
        return all(getattr(self, one) == getattr(other, one) for one in told) and self._same_tensors(other)

    def _same_tensors(self, other: Snapshot) -> bool:
        if self.tensors.keys() != other.tensors.keys():
            return False
        pairs = ((self.tensors[name], other.tensors[name]) for name in self.tensors)
        return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.fixture
def snapshot() -> Callable[[nn.Module], Snapshot]:
    return Snapshot


@pytest.fixture
def resnet18() -> tg.Graft:
    """A resnet18 with random weights, at a size that is quick."""
    return tg.load("torchvision:resnet18@none", input=(3, 64, 64))


class CustomBlock(nn.Module):
    """The attention block of the course chapter: it doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels * 2
        self.conv = nn.Conv2d(channels, wide, 3, padding=1)
        self.attn = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, channels // 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 2, wide, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x * self.attn(x)


@pytest.fixture
def custom_block() -> type[nn.Module]:
    return CustomBlock
