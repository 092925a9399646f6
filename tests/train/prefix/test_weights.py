"""The same final weights, bit for bit, with the frozen part computed once."""

from __future__ import annotations

import pytest
import torch
from tests.train.prefix.nets import Auxiliary, Branches, Reused, Steered, both, equal, frozen_but
from torch import nn
from torchvision import models


def images(count=10, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def vit():
    return models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)


def swin():
    return models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=3)


def densenet():
    return models.DenseNet(4, (2, 2), 8, num_classes=3)


CASES = {
    "resnet18, head": (lambda: models.resnet18(num_classes=3), ("fc",), "flatten in the model"),
    "resnet18, layer4": (lambda: models.resnet18(num_classes=3), ("fc", "layer4"), "layer3"),
    "vit, head": (vit, ("heads",), "__getitem__ in the model"),
    "vit, last layer": (vit, ("heads", "encoder.ln", "encoder.layers.encoder_layer_1"), "encoder.layers.encoder_layer_0"),
    "swin, head": (swin, ("head",), "flatten"),
    "swin, last stage": (swin, ("head", "norm", "features.3"), "features.2"),
    "densenet, head": (densenet, ("classifier",), "flatten in the model"),
    "densenet, last block": (densenet, ("classifier", "features.denseblock2", "features.norm5"), "features.transition1"),
    "mobilenet, head with dropout": (lambda: models.mobilenet_v3_small(num_classes=3), ("classifier",), "flatten in the model"),
    "two branches": (Branches, ("right", "head"), "left"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_weights_are_bit_equal(name):
    torch.manual_seed(0)
    make, free, after = CASES[name]
    plain, ours, cache = both(frozen_but(make(), *free), images(), 10)
    assert equal(plain, ours)
    assert cache.prefix.pieces[0].after == after
    assert (cache.whole, cache.answered) == (3, 6)


@pytest.mark.parametrize(("make", "free"), [(Reused, ("between", "head")), (Auxiliary, ("high", "head", "aux"))])
def test_a_module_that_comes_twice_and_heads_in_the_middle(make, free):
    torch.manual_seed(0)
    plain, ours, cache = both(frozen_but(make(), *free), torch.randn(10, 6), 10)
    assert equal(plain, ours)
    assert cache.answered == 6
