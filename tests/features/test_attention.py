"""The weights of attention are those that the layers themselves would give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import SelectionError
from torchgraft.features import attention_maps, rollout
from torchgraft.features.attention import on_image
from torchgraft.features.layout import Grids


class Torch(nn.Module):
    """torch's own attention, asked for no weights, as torchvision's ViT does it."""

    def __init__(self):
        super().__init__()
        self.one = nn.MultiheadAttention(12, 3, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)

    def forward(self, x):
        return self.layer(x + self.one(x, x, x, need_weights=False)[0])


def test_torchs_own_attention_gives_the_weights_that_it_gives_when_asked():
    torch.manual_seed(0)
    model, x = Torch().eval(), torch.randn(2, 5, 12)
    g = tg.load(model, input=(5, 12))
    found = attention_maps(g, x)
    wanted = model.one(x, x, x, average_attn_weights=False)[1]
    given = x + model.one(x, x, x)[0]
    second = model.layer.self_attn(given, given, given, average_attn_weights=False)[1]
    assert [(one.path, one.kind) for one in found] == [
        ("one", "MultiheadAttention"),
        ("layer.self_attn", "MultiheadAttention"),
    ]
    assert torch.allclose(found[0].weights, wanted, atol=1e-6)
    assert torch.allclose(found[1].weights, second, atol=1e-5)


def test_the_pass_itself_is_what_it_is_without():
    torch.manual_seed(0)

    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, x):
            out, weights = self.one(x, x, x)
            return out.sum((1, 2)) + weights.square().sum((1, 2))

    model, x = Averaged().eval(), torch.randn(2, 5, 12)
    outs = []
    handle = model.register_forward_hook(lambda m, a, out: outs.append(out))
    attention_maps(tg.load(model, input=(5, 12)), x)
    handle.remove()
    with torch.no_grad():
        assert torch.allclose(outs[-1], model(x), atol=1e-6)


def test_timms_fused_attention_gives_what_it_gives_written_out():
    torch.manual_seed(0)
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2).eval()
    x = torch.randn(1, 3, 64, 64)
    g = tg.load(model, input=(3, 64, 64))
    fused = attention_maps(g, x)
    for block in model.blocks:
        assert block.attn.fused_attn
        block.attn.fused_attn = False
    written = attention_maps(g, x)
    assert [one.path for one in fused] == ["blocks.0.attn", "blocks.1.attn"]
    assert fused[0].weights.shape == (1, 3, 17, 17)
    for one, other in zip(fused, written, strict=True):
        assert torch.allclose(one.weights, other.weights, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_transformers_attention_is_that_of_output_attentions(causal):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if causal:
        config = transformers.GPT2Config(n_embd=12, n_head=3, n_layer=2, vocab_size=40, n_positions=16)
        build = transformers.GPT2Model
    else:
        config = transformers.BertConfig(
            hidden_size=12, num_attention_heads=3, num_hidden_layers=2, intermediate_size=16, vocab_size=40
        )
        build = transformers.BertModel
    given = {"input_ids": torch.randint(0, 40, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
    given["attention_mask"][1, 5:] = 0
    fused = build(config).eval()
    found = attention_maps(tg.load(fused, input=given), given)
    fused.set_attn_implementation("eager")
    wanted = fused(**given, output_attentions=True).attentions
    assert len(found) == len(wanted) == 2
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one.weights, other, atol=1e-5)


def test_only_the_attention_in_the_layers_asked_for():
    g = tg.load(Torch(), input=(5, 12))
    assert [one.path for one in attention_maps(g, torch.randn(1, 5, 12), at="layer")] == ["layer.self_attn"]


def test_rollout_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    g = tg.load(Torch(), input=(5, 12))
    found = attention_maps(g, torch.randn(2, 5, 12))
    steps = [0.5 * one.weights.mean(1) + 0.5 * torch.eye(5) for one in found]
    assert torch.allclose(rollout(found), steps[1] @ steps[0], atol=1e-6)
    assert torch.allclose(rollout(found).sum(-1), torch.ones(2, 5), atol=1e-5)


def test_windows_are_given_but_not_followed():
    g = tg.load("torchvision:swin_t@none", input=(3, 64, 64))
    found = attention_maps(g, torch.randn(1, 3, 64, 64))
    assert found[0].weights.shape[1:] == (3, 49, 49)
    with pytest.raises(SelectionError, match="windows"):
        rollout(found)


def test_the_class_token_is_laid_on_the_image():
    weights = torch.zeros(1, 13, 13)
    weights[0, 0, 1 + 6] = 1
    found = on_image(weights, Grids((6, 8)))
    assert found.shape == (1, 3, 4)
    assert float(found[0, 1, 2]) == 1
    assert on_image(torch.zeros(1, 13, 12), Grids((6, 8))) is None


def test_nothing_is_left_behind(snapshot):
    model = Torch()
    before = snapshot(model)
    attention_maps(tg.load(model, input=(5, 12)), torch.randn(1, 5, 12))
    assert snapshot(model) == before


def test_a_model_without_attention_is_told():
    g = tg.load(nn.Sequential(nn.Conv2d(3, 2, 1)), input=(3, 8, 8))
    with pytest.raises(SelectionError, match=r"no attention here(.|\n)*--kind maps"):
        attention_maps(g, torch.randn(1, 3, 8, 8))
