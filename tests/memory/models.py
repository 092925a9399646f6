"""Small models of the kinds that people train, each with one batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vision_transformer import VisionTransformer
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

import torchgraft as tg
from torchgraft.recipe import TrainPlan

SGD = {"sgd": {"lr": 0.1, "momentum": 0.9}}
ADAMW = {"adamw": {"lr": 1e-3, "weight_decay": 0.01}}


def resnet() -> nn.Module:
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def vit() -> nn.Module:
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=48, mlp_dim=96, num_classes=10)


def bert() -> nn.Module:
    config = BertConfig(
        vocab_size=300, hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96
    )
    return BertForSequenceClassification(config)


def decoder() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=64, n_embd=48, n_layer=2, n_head=2))


BLOCKS = {
    "resnet": "layer[1234].*",
    "vit": "encoder.layers.*",
    "bert": "bert.encoder.layer.*",
    "decoder": "transformer.h.*",
}
MAKERS = {"resnet": resnet, "vit": vit, "bert": bert, "decoder": decoder}


def batch(name: str, count: int) -> Any:
    """Give one batch as the model takes it: a tuple of arguments, or a dict of them by name."""
    generator = torch.Generator().manual_seed(0)
    if name in ("resnet", "vit"):
        return (torch.randn(count, 3, 32, 32, generator=generator),)
    ids = torch.randint(0, 300, (count, 40), generator=generator)
    if name == "decoder":
        return {"input_ids": ids}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def made(name: str, *, frozen: bool = False) -> tg.Graft:
    """Give a graft that is traced with two samples."""
    torch.manual_seed(0)
    given = batch(name, 2)
    graft = tg.load(MAKERS[name](), input=given[0] if isinstance(given, tuple) else given)
    return graft.freeze(all_but=["head"]) if frozen else graft


def plan(**settings: Any) -> TrainPlan:
    return TrainPlan.model_validate({"data": "none", "batch": 4, **settings})
