from __future__ import annotations

import torch

from torchgraft.recipe import TrainPlan
from torchgraft.train.augment import augmentation, light


def test_none_leaves_a_batch_as_it_is():
    images = torch.randn(4, 3, 8, 8)
    assert augmentation(TrainPlan(data="x"))(images) is images


def test_light_varies_each_image_a_little():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    blob = torch.exp(-8 * (x**2 + y**2)).expand(200, 1, 33, 33)
    torch.manual_seed(0)
    varied = light(blob)
    assert varied.shape == blob.shape
    assert not torch.equal(varied[0], varied[1])
    weight = varied / varied.sum((2, 3), keepdim=True)
    centre = torch.stack([(weight * x).sum((1, 2, 3)), (weight * y).sum((1, 2, 3))])
    assert centre.abs().max() < 0.25
    assert centre.abs().mean() > 0.05


def test_light_draws_the_same_from_the_same_seed():
    images = torch.randn(4, 3, 8, 8)
    torch.manual_seed(3)
    first = light(images)
    torch.manual_seed(3)
    assert torch.equal(light(images), first)
