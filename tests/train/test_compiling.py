from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from torchgraft.train.compiling import compiled

from .resuming import trained


@pytest.mark.slow
def test_a_compiled_training_is_the_plain_one_up_to_rounding():
    plain, told, _ = trained(epochs=1)
    fast, same, _ = trained(epochs=1, compile=True)
    assert list(fast.module.state_dict()) == list(plain.module.state_dict())
    assert same.epochs[0].train_loss == pytest.approx(told.epochs[0].train_loss, rel=1e-3)


class Odd(nn.Module):
    def forward(self, x):
        torch._dynamo.graph_break()
        raise ValueError("its own mistake")


def test_the_models_own_mistakes_stay_its_own():
    with pytest.raises(ValueError, match="its own mistake"):
        compiled(Odd())(torch.zeros(1))


@pytest.mark.slow
def test_what_the_compiler_can_not_do_is_told(tmp_path):
    script = (
        "import torch; from torchgraft.train.compiling import compiled; compiled(torch.nn.GELU())(torch.ones(9))"
    )
    env = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True).stderr
    assert "TrainError: torch.compile can't compile this model" in told
    assert "leave compile out" in told
