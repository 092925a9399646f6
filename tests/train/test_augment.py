from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from torchgraft.errors import TrainError
from torchgraft.preprocess import Preprocess
from torchgraft.recipe import TrainPlan
from torchgraft.train.augment import Light, augmentation, light, transforms
from torchgraft.train.draws import isolated
from torchgraft.train.pictures import preparation


def test_none_leaves_a_batch_as_it_is():
    images = torch.randn(4, 3, 8, 8)
    assert augmentation(TrainPlan(data="x"))(images) is images


def _blobs():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    return torch.exp(-8 * (x**2 + y**2)).expand(200, 1, 33, 33), x, y


def test_light_varies_each_image_a_little():
    blob, x, y = _blobs()
    varied = light(blob, torch.rand(200, 5, generator=torch.Generator().manual_seed(0)))
    assert varied.shape == blob.shape
    assert not torch.equal(varied[0], varied[1])
    weight = varied / varied.sum((2, 3), keepdim=True)
    centre = torch.stack([(weight * x).sum((1, 2, 3)), (weight * y).sum((1, 2, 3))])
    assert centre.abs().max() < 0.3
    assert centre.abs().mean() > 0.05


def test_light_leaves_an_image_alone_where_every_number_is_in_the_middle():
    images = torch.randn(2, 3, 8, 8)
    assert torch.allclose(light(images, torch.full((2, 5), 0.5)), images, atol=1e-5)


def test_light_draws_the_same_for_a_sample_in_whatever_batch_it_is():
    blob = _blobs()[0]
    whole = Light(3)
    draws = whole.draws(range(10), 10, 1)
    assert torch.equal(whole.draws([7, 2], 10, 1), draws[[7, 2]])
    assert torch.equal(Light(3).draws([7], 10, 1), draws[7:8])
    assert not torch.equal(whole.draws(range(10), 10, 2), draws)
    assert not torch.equal(Light(4).draws(range(10), 10, 1), draws)
    assert torch.equal(whole(blob[:10], None, draws)[0][7], whole(blob[:1], None, draws[7:8])[0][0])


def test_light_varies_a_mask_with_its_image_and_leaves_classes():
    images = (torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    images = torch.nn.functional.interpolate(images, scale_factor=4.0)
    draws = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
    varied, masks = Light(0)(images, images[:, 0].long() * 9, draws)
    assert masks.dtype == torch.long
    assert set(masks.unique().tolist()) == {0, 9}
    assert ((varied[:, 0] > 0.5) == (masks == 9)).float().mean() > 0.93
    classes = torch.arange(6)
    assert Light(0)(images, classes, draws)[1] is classes


# transforms of torchvision


def picture(size=20):
    ramp = np.linspace(0, 255, size * size * 3).reshape(size, size, 3).astype(np.uint8)
    return Image.fromarray(ramp)


def prepared(augment, *, size=(16, 16), resize=None, seed=0):
    preprocess = Preprocess(size=size, resize=resize)
    transform = preparation(preprocess, TrainPlan(data="x", augment=augment), train=True)
    with isolated() as chance:
        chance.seed(seed)
        return transform(picture())


def test_a_list_names_transforms_with_their_settings():
    plan = TrainPlan(data="x", augment=["RandomHorizontalFlip", {"RandomRotation": {"degrees": 10}}])
    flip, turn = transforms(plan, (16, 16))
    assert type(flip).__name__ == "RandomHorizontalFlip"
    assert turn.degrees == [-10.0, 10.0]
    trivial = transforms(TrainPlan(data="x", augment="trivial"), (8, 8))
    assert "TrivialAugmentWide" in [type(one).__name__ for one in trivial]
    assert transforms(TrainPlan(data="x", augment="light"), (8, 8)) == []


def test_images_are_normalised_after_they_are_varied():
    flipped = prepared([{"RandomHorizontalFlip": {"p": 1.0}}])
    assert torch.equal(flipped, prepared("none").flip(2))
    few = prepared([{"RandomPosterize": {"bits": 1, "p": 1.0}}])  # it takes whole numbers from 0 to 255 alone
    assert all(len(colour.unique()) == 2 for colour in few)


@pytest.mark.parametrize("resize", [None, 18])
@pytest.mark.parametrize(
    "augment",
    ["trivial", ["RandomResizedCrop"], [{"RandomCrop": {"size": 9}}], [{"Pad": {"padding": 7}}]],
    ids=str,
)
def test_the_result_has_the_size_of_the_network_whatever_a_transform_leaves(augment, resize):
    assert prepared(augment, resize=resize).shape == (3, 16, 16)


def test_a_random_crop_without_a_size_takes_that_of_the_network():
    (crop,) = transforms(TrainPlan(data="x", augment=["RandomResizedCrop"]), (16, 12))
    assert list(crop.size) == [16, 12]


def test_a_random_crop_that_comes_first_is_cut_out_of_the_whole_image():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8))
    plan = TrainPlan(data="x", augment=[{"RandomResizedCrop": {"scale": [0.01, 0.01], "ratio": [1.0, 1.0]}}])
    crop = preparation(Preprocess(size=(16, 16), resize=18), plan, train=True)(noise)
    assert crop.shape == (3, 16, 16)
    assert crop.std() > 1  # brought to 18 pixels first, noise would be grey


def test_transforms_may_hold_others():
    augment = [{"RandomApply": {"transforms": [{"GaussianBlur": {"kernel_size": 3}}], "p": 1.0}}]
    assert not torch.equal(prepared(augment), prepared("none"))


def test_validation_images_are_not_varied():
    plan = TrainPlan(data="x", augment="trivial")
    transform = preparation(Preprocess(size=(16, 16)), plan, train=False)
    assert torch.equal(transform(picture()), prepared("none"))


@pytest.mark.parametrize(
    ("augment", "what", "hint"),
    [
        (
            ["RandomHorizontalFlp"],
            "torchvision has no transform 'RandomHorizontalFlp'",
            "did you mean RandomHorizontalFlip",
        ),
        (["Colorjitter"], "torchvision has no transform 'Colorjitter'", "did you mean ColorJitter"),
        (["MixUp"], "torchvision has no transform 'MixUp'", "mixup: 0.2 beside augment"),
        (["Xyz"], "torchvision has no transform 'Xyz'", "docs.pytorch.org"),
        ([{"RandomRotation": {"degree": 3}}], "RandomRotation: .*degree", "did you mean degrees"),
        ([{"RandomRotation": {"degrees": -3}}], "RandomRotation: .*positive", "RandomRotation takes degrees"),
        ([{"RandomApply": {"transforms": ["GausianBlur"]}}], "no transform 'GausianBlur'", "GaussianBlur"),
    ],
)
def test_a_transform_that_is_none_is_refused_with_the_nearest(augment, what, hint):
    with pytest.raises(TrainError, match=what) as caught:
        transforms(TrainPlan(data="x", augment=augment), (8, 8))
    assert hint in caught.value.hint
    assert caught.value.where == "train.augment"
