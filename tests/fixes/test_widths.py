from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fixes.mending import mended, offered
from tests.net import Net
from torch import nn

import torchgraft as tg

TOKENS = torch.randint(1, 50, (3, 7))


def last_of(net: Any, tokens: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = net.out(net.body(net.words(tokens))[0][:, -1])
    return out


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_of_another_width_is_projected_to_or_its_maker_resized(kind):
    def model() -> nn.Module:
        return Net(last_of, words=nn.Embedding(50, 24), body=kind(32, 16, batch_first=True), out=nn.Linear(16, 2))

    (finding,) = tg.check(model(), TOKENS)
    assert (finding.code, finding.where) == ("S002", "Net / body")
    assert "takes 32 features, but gets 24 of [N, 7, 24]" in finding.facts[0]
    assert "made by  words (Embedding)" in finding.facts[1]
    assert set(offered(model(), TOKENS)) == {"resize-maker", "project"}
    for which in ("resize-maker", "project"):
        g, output = mended(model(), TOKENS, which)
        assert output.shape == (3, 2)
        assert g.module.body.input_size == 32


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_of_another_width_is_found_and_mended(kind):
    def forward(net, x):
        state = net.body(net.fc(x))
        return net.out(state[0] if isinstance(state, tuple) else state)

    model = Net(forward, fc=nn.Linear(5, 24), body=kind(32, 16), out=nn.Linear(16, 2))
    assert tg.check(model, torch.randn(3, 5))[0].code == "S002"
    _, output = mended(model, torch.randn(3, 5))
    assert output.shape == (3, 2)


def test_an_encoder_of_another_width_is_given_its_own():
    layer = nn.TransformerEncoderLayer(64, 4, 32, batch_first=True)
    for which in ("resize-maker", "project"):
        model = Net(
            lambda net, x: net.out(net.body(net.words(x)).mean(1)),
            words=nn.Embedding(50, 48),
            body=nn.TransformerEncoder(layer, 2),
            out=nn.Linear(64, 3),
        )
        (finding,) = tg.check(model, TOKENS)
        assert finding.code == "S002"
        assert "takes 64 features, but gets 48" in finding.facts[0]
        _, output = mended(model, TOKENS, which)
        assert output.shape == (3, 3)


def test_keys_of_another_width_are_projected_alone():
    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.look = nn.Linear(10, 32), nn.MultiheadAttention(32, 4, kdim=16, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            found: torch.Tensor = self.look(y, y, y)[0]
            return found

    (finding,) = tg.check(Look(), torch.randn(3, 7, 10))
    assert finding.facts[0] == "look (MultiheadAttention) takes 16 features, but gets 32 of [N, 7, 32]"
    g, output = mended(Look(), torch.randn(3, 7, 10))
    assert output.shape == (3, 7, 32)
    assert [edit.operand for edit in g.recipe.edits] == [1]


def test_what_the_model_itself_is_given_is_for_the_user_to_say():
    (finding,) = tg.check(nn.LSTM(32, 16), torch.randn(3, 7, 24))
    assert (finding.code, finding.fixes) == ("S002", ())
    assert "given as the model's input" in finding.facts
