from __future__ import annotations

import pytest
import torch
from torch import nn

from torchgraft.errors import SourceError
from torchgraft.filling import fill
from torchgraft.weights.kinds import peculiar

ONE = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ({"a.weight": torch.empty(0), "a.bias": torch.empty(0)}, "ZeRO-3"),
        ({"_flat_param": ONE}, "flattened by FSDP"),
        (
            {"base_model.model.fc.lora_A.default.weight": ONE, "base_model.model.fc.lora_B.default.weight": ONE},
            "adapter",
        ),
        ({"model.layers.0.qweight": ONE, "model.layers.0.qzeros": ONE}, "codes of a quantised model"),
        ({"bert/encoder/layer_0/attention/kernel": ONE}, "TensorFlow"),
    ],
)
def test_weights_that_are_no_state_dict_of_a_model_are_told(state, what):
    assert what in peculiar(state)[0]
    with pytest.raises(SourceError, match=what):
        fill(nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)), state)


def test_a_plain_state_dict_is_not_peculiar():
    assert peculiar(nn.Linear(2, 2).state_dict()) is None
