"""Remove: what stood before and after is joined, and what counts the layers follows."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.edits.again import again
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import torchgraft as tg
from torchgraft.errors import EditError

WORDS = torch.randint(0, 50, (2, 8))
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 2, "vocab_size": 50, "n_positions": 16}


def test_removing_from_a_sequential_joins_what_stood_around():
    g = tg.load("torchvision:vgg11@none", input=(3, 64, 64))
    g.remove("classifier.2")
    assert list(g.module.classifier._modules) == ["0", "1", "3", "4", "5", "6"]


def test_removing_an_attribute_leaves_an_identity(resnet18):
    resnet18.remove("maxpool")
    assert isinstance(resnet18.module.maxpool, nn.Identity)


def test_removing_what_others_depend_on_is_refused(resnet18):
    with pytest.raises(EditError, match="takes 128 channels, but gets 64"):
        resnet18.remove("layer2")


@pytest.mark.parametrize("fix", ["adapt", "propagate"])
@pytest.mark.parametrize("at", ["layer3", "layer2.0.conv1"])
def test_sizes_that_do_not_agree_after_a_removal_are_mended(resnet18, at, fix):
    resnet18.remove(at, fix=fix)
    assert resnet18.module.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 1000)
    again(resnet18)


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (lambda: BertForSequenceClassification(BertConfig(**SIZES, vocab_size=50)), "bert.encoder.layer.1"),
        (lambda: GPT2LMHeadModel(GPT2Config(**GPT)), "transformer.h.1"),
        (lambda: LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=50)), "model.layers.1"),
    ],
    ids=["bert", "gpt2", "llama"],
)
def test_a_layer_of_transformers_leaves_its_list_and_the_configuration_follows(make, at, snapshot):
    g = tg.load(make().eval(), input=WORDS)
    before = snapshot(g.module)
    keys = set(g.module.state_dict())
    g.remove(at)
    assert list(g.module.get_submodule(at.rpartition(".")[0])._modules) == ["0", "2"]
    assert g.module.config.num_hidden_layers == 2
    assert set(g.module.state_dict()) == {key for key in keys if not key.startswith(f"{at}.")}
    assert g.module.train()(WORDS).logits.isfinite().all()
    assert not [finding for finding in g.check() if finding.severity != "note"]
    g.undo()
    g.module.eval()
    assert g.module.config.num_hidden_layers == 3
    assert snapshot(g.module) == before


def test_a_layer_of_torchs_own_encoder_leaves_its_list():
    g = tg.load(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 3), input=(5, 8))
    g.remove("layers.1")
    assert g.module.num_layers == 2
    assert list(g.module.layers._modules) == ["0", "2"]


def test_what_is_read_by_number_is_passed_by():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

        def forward(self, x):
            return self.layers[2](self.layers[1](self.layers[0](x)))

    g = tg.load(Net(), input=(4,)).remove("layers.1")
    assert isinstance(g.module.layers[1], nn.Identity)


def test_an_attention_that_is_removed_gives_its_query_back():
    g = tg.load(nn.TransformerEncoderLayer(8, 2, batch_first=True), input=(5, 8)).remove("self_attn")
    x = torch.randn(2, 5, 8)
    layer = g.module.eval()
    normed = layer.norm1(x + x)
    wanted = layer.norm2(normed + layer.linear2(layer.linear1(normed).relu()))
    for model in (layer, copy.deepcopy(layer)):
        torch.testing.assert_close(model(x), wanted)
    assert not any(name.startswith("self_attn") for name in layer.state_dict())


def test_a_layer_under_two_names_goes_from_both():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.other = self.one

        def forward(self, x):
            return self.other(self.one(x))

    g = tg.load(Two(), input=(4,)).remove("one")
    assert isinstance(g.module.other, nn.Identity)
    assert not g.module.state_dict()
