"""A part that stays in evaluation mode: norms that stand still, and no dropout of any kind."""

from __future__ import annotations

import pytest
import timm
import torch
import transformers
from tests.edits.again import again
from torch import nn
from torchvision.models import DenseNet, VisionTransformer

import torchgraft as tg
from torchgraft.errors import EditError

WORDS = {"input_ids": torch.arange(12).reshape(2, 6)}
SMALL = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PATCHES = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 3}


def bert() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(**SMALL, intermediate_size=16))


def gpt2() -> nn.Module:
    return transformers.GPT2Model(transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2))


def llama() -> nn.Module:
    return transformers.LlamaModel(
        transformers.LlamaConfig(**SMALL, num_key_value_heads=2, intermediate_size=16, attention_dropout=0.5)
    )


MODELS = {
    "bert": (bert, WORDS),
    "gpt2": (gpt2, WORDS),
    "llama": (llama, WORDS),
    "vit": (lambda: VisionTransformer(16, 8, 1, 2, 16, 16, 0.3, 0.3, num_classes=3), None),
    "densenet": (lambda: DenseNet(4, (1, 1), 8, drop_rate=0.3, num_classes=3), None),
    "timm vit": (lambda: timm.create_model("vit_tiny_patch16_224", attn_drop_rate=0.3, **PATCHES), None),
    "timm resnet": (lambda: timm.create_model("resnet10t", drop_rate=0.3, drop_path_rate=0.3), None),
    "lstm": (lambda: nn.Sequential(nn.LSTM(4, 4, 2, dropout=0.5)), torch.ones(3, 2, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_nothing_moves_in_training_mode_whatever_held_the_dropout(name, snapshot):
    make, given = MODELS[name]
    model = make().train()
    size = (3, 32, 32) if "net" in name else (3, 16, 16)
    g = tg.load(model, input=size if given is None else given)
    before = snapshot(model)
    g.eval_mode("**")
    model.train()
    runs = []
    for seed in range(2):
        torch.manual_seed(seed)
        example = torch.ones(2, *g.input_shape) if given is None else given
        gave = model(**example) if isinstance(example, dict) else model(example)
        runs.append(gave if isinstance(gave, torch.Tensor) else gave[0])
    assert torch.equal(*runs)
    assert snapshot(g.undo().module) == before


def test_a_part_of_a_transformer_is_frozen_still(snapshot):
    model = bert().train()
    before = snapshot(model)
    g = tg.load(model, input=WORDS).freeze("encoder.layer.0", still=True)
    assert model.encoder.layer[0].attention.self.dropout.p == 0
    assert model.embeddings.dropout.p > 0
    assert snapshot(g.undo().module) == before


def test_the_rate_of_a_part_alone_is_set():
    model = VisionTransformer(16, 8, 2, 2, 16, 16, attention_dropout=0.3, num_classes=3)
    g = tg.load(model, input=(3, 16, 16)).eval_mode("encoder.layers.encoder_layer_0")
    assert [block.self_attention.dropout for block in model.encoder.layers] == [0.0, 0.3]
    assert g.undo().module.encoder.layers[0].self_attention.dropout == 0.3


def test_it_replays():
    again(tg.load("torchvision:mobilenet_v3_small@none", input=(3, 32, 32)).eval_mode("features"))


def test_a_part_with_nothing_to_stop_is_refused():
    with pytest.raises(EditError, match="nothing in 0 differs between training and evaluation"):
        tg.load(nn.Sequential(nn.Linear(4, 4)), input=(4,)).eval_mode("0")
