from __future__ import annotations

import torch
from torch import nn
from torchvision import models

import torchgraft as tg


def codes(model, shape):
    return [finding.code for finding in tg.check(model, shape)]


def test_a_map_that_is_stretched_is_told():
    with torch.device("meta"):
        model = models.vgg11(weights=None)
    assert codes(model, (3, 64, 64)) == ["S022"]
    assert codes(model, (3, 224, 224)) == []


def test_pixels_that_fill_no_patch_are_told():
    model = nn.Sequential(nn.Conv2d(3, 4, 16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (found,) = tg.check(model, (3, 40, 32))
    assert (found.code, found.facts) == ("S023", ("of 40×32 pixels, 32×32 are seen",))
    assert codes(model, (3, 48, 32)) == []
