"""A small classifier, and pictures that it learns in a second."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import torchgraft as tg
from torchgraft.data.base import ArraySamples, DataSet
from torchgraft.preprocess import Preprocess


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8 * 64, 3)

    def forward(self, x):
        return self.fc(self.drop(self.stem(x).flatten(1)))


def stripes(count, seed):
    """Real pictures of three kinds: stripes across, stripes down, a disc; with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    y, x = np.mgrid[:8, :8]
    kinds = np.stack([y % 2 * 200, x % 2 * 200, ((x - 4) ** 2 + (y - 4) ** 2 < 9) * 200])
    noisy = np.clip(kinds[labels] + rng.normal(0, 40, (count, 8, 8)), 0, 255)
    return ArraySamples(noisy.astype(np.uint8), labels.astype(np.int64))


DATA = DataSet(stripes(96, 0), stripes(48, 1), ("across", "down", "disc"), 1, (8, 8), "made for the test")


def graft(seed=0):
    torch.manual_seed(seed)
    g = tg.load(Tiny(), input=(1, 8, 8), seed=seed)
    g.recipe = g.recipe.model_copy(
        update={"preprocess": Preprocess(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))}
    )
    return g


SETTINGS = {"epochs": 6, "batch": 16, "optimizer": {"adamw": {"lr": 1e-2}}}
