"""Tensors that a model takes, and those that it does not."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import torchgraft as tg
from torchgraft.errors import DataError

TARGETS = np.arange(40) % 3


def glyphs():
    return tg.load("bundled:glyphs").head(3)  # takes [1, 16, 16]


@pytest.mark.parametrize(
    ("inputs", "said", "hint"),
    [
        (np.zeros((40, 16, 16), np.float32), r"float32 \[N, 16, 16\]", r"inputs\[:, None\]"),
        (np.zeros((40, 16, 16, 1), np.float32), r"float32 \[N, 16, 16, 1\]", "channels first"),
        (np.zeros((40, 16, 16, 3), np.float32), r"float32 \[N, 16, 16, 3\]", "channels first"),
        (np.zeros((40, 3, 16, 16), np.float32), r"float32 \[N, 3, 16, 16\]", r"g\.input\(channels=3\)"),
        (np.zeros((40, 1, 16, 16), np.int64), r"int64 \[N, 1, 16, 16\]", "make them float32"),
        (np.zeros((40, 256), np.float32), r"float32 \[N, 256\]", r"make them \[1, 16, 16\]"),
        (torch.zeros(40, 1, 16, 16, dtype=torch.float64), r"float64 \[N, 1, 16, 16\]", "make them float32"),
    ],
)
def test_what_the_model_does_not_take_is_told_before_training(inputs, said, hint):
    with pytest.raises(DataError, match=f"does not run on {said}") as caught:
        glyphs().train((inputs, TARGETS), epochs=1)
    assert re.search(hint, caught.value.hint)


def test_batches_of_a_loader_are_looked_at_and_its_order_stays():
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.rand(40, 16, 16), torch.tensor(TARGETS)), batch_size=8, shuffle=True)
    before = torch.get_rng_state()
    with pytest.raises(DataError, match="does not run"):
        glyphs().train((loader, loader), epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_size_that_the_model_takes_is_taken():
    history = glyphs().train((torch.rand(40, 1, 24, 20), TARGETS), epochs=1, batch=20)
    assert len(history.epochs) == 1
