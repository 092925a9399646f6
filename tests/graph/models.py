"""Models that are drawn in tests: small, and of every shape that drawings must get right."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

import torchgraft as tg
from torchgraft.graph import Drawing, drawing


def vit() -> tg.Graft:
    """A small vision transformer of torchvision."""
    from torchvision.models import VisionTransformer

    return tg.load(VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=10), input=(3, 32, 32))


class Several(nn.Module):
    """Dicts go in and come out; one layer is called twice, two are tied, one never; a parameter is read bare."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.shared = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(8))
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.words.weight
        self.spare = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.0)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, unread: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.words(ids)
        x = x + self.scale * self.shared(self.shared(x).relu())
        x = self.drop(x) * mask[..., None]
        return {"logits": self.out(x), "pooled": x.mean(1)}


def several() -> tg.Graft:
    ids = torch.zeros(2, 5, dtype=torch.long)
    return tg.load(Several(), input={"ids": ids, "mask": torch.ones(2, 5), "unread": torch.ones(2, 5)})


def resnet18() -> tg.Graft:
    return tg.load("torchvision:resnet18@none", input=(3, 64, 64))


def swin_t() -> tg.Graft:
    return tg.load("torchvision:swin_t@none", input=(3, 64, 64))


def bert() -> tg.Graft:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(vocab_size=100, **sizes))
    ids = torch.zeros(2, 16, dtype=torch.long)
    return tg.load(model, input={"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def llama() -> tg.Graft:
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "intermediate_size": 64, "vocab_size": 100}
    return tg.load(LlamaForCausalLM(LlamaConfig(**heads, **sizes)), input=torch.zeros(2, 16, dtype=torch.long))


def edited() -> tg.Graft:
    """A resnet18 with a head, attention, a block that a repair made fit, and a frozen rest."""
    graft = resnet18()
    graft.head(10, hidden=[256], dropout=0.3)
    graft.insert(tg.blocks.SqueezeExcite(reduction=4), after="layer1", name="attention")
    graft.insert(nn.Conv2d(128, 256, 3, padding=1), after="layer2", name="wide", fix="adapt")
    return graft.freeze(all_but=["head", "layer1.attention", "layer2.wide", "layer4"])


def broken() -> tg.Graft:
    """A resnet18 with a layer that does not take what it gets."""
    model = resnet18().module
    model.layer3[0].conv1 = nn.Conv2d(64, 256, 3, stride=2, padding=1)
    return tg.load(model, input=(3, 64, 64))


GOLDEN = {"resnet18": resnet18, "vit": vit, "swin_t": swin_t, "bert": bert, "llama": llama, "edited": edited}
"""The models whose pictures are kept."""

ALL = {**GOLDEN, "several": several, "broken": broken}


@cache
def graft(name: str) -> tg.Graft:
    """Give a model that tests share: they only look at it."""
    return ALL[name]()


@cache
def drawn(name: str, fold: bool = True) -> Drawing:
    return drawing(graft(name), fold=fold)
