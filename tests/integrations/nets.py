"""A body with norms and dropout, a head, and a few random images: small enough for any trainer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    """`[N, 3, 6, 6]` -> `[N, 4]`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(6, 6, 3),
            nn.BatchNorm2d(6),
        )
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().mean((2, 3)))


class WithOrphan(Net):
    """A layer hangs on the model that its forward never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten = nn.Linear(6, 4)


def images(count: int = 32, *, bad: int | None = None) -> TensorDataset:
    """Give random images and classes; number `bad` holds one NaN."""
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(count, 3, 6, 6, generator=draw), torch.randint(0, 4, (count,), generator=draw)
    if bad is not None:
        x[bad, 0, 0, 0] = float("nan")
    return TensorDataset(x, y)


def frozen_body(model: Net) -> Net:
    for one in model.body.parameters():
        one.requires_grad_(False)
    return model


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.clone() for name, one in model.named_buffers() if "running" in name}


def is_finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(one).all()) for one in model.state_dict().values())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
