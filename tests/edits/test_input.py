from __future__ import annotations

import pytest
import timm
import torch
import transformers
from torch import nn
from torchvision.models import googlenet, inception_v3

import torchgraft as tg
from torchgraft.errors import EditError
from torchgraft.surgery.stem import fold


class Two(nn.Module):
    """A stem that reads the image twice, once in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.in_chans = 3
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 6, 1, groups=3)
        self.fc = nn.Linear(14, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([self.a(x), self.b(x)], 1).mean((2, 3)))


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6, 9])
def test_every_reader_of_the_image_is_folded_exactly_grouped_ones_too(channels, snapshot):
    model, grey = Two(), torch.randn(2, 1, 7, 7)
    before = model(grey.expand(-1, 3, -1, -1))
    g = tg.load(model, input=(3, 7, 7))
    kept = snapshot(model)
    g.input(channels=channels)
    assert torch.allclose(model(grey.expand(-1, channels, -1, -1)), before, atol=1e-6)
    assert model.in_chans == channels
    g.undo()
    assert snapshot(model) == kept


def test_both_readers_follow_where_the_model_breaks_off_at_the_first():
    model = Two()
    g = tg.load(model, input=(1, 7, 7)).input(channels=1)
    assert g.check() == ()
    assert (model.a.in_channels, model.b.in_channels) == (1, 1)


def test_new_channels_may_start_at_zero():
    model = Two()
    image = torch.randn(2, 3, 7, 7)
    before = model(image)
    tg.load(model, input=(3, 7, 7)).input(channels=4, extra="zero")
    assert torch.allclose(model(torch.cat([image, torch.randn(2, 1, 7, 7)], 1)), before, atol=1e-6)
    weight = torch.randn(5, 3, 3, 3)
    assert torch.equal(fold(weight, 4, zero=True)[:, :3], weight)


@pytest.mark.parametrize(("build", "size", "exact"), [(inception_v3, 96, True), (googlenet, 64, False)])
def test_a_transformed_input_is_folded_into_the_first_layer(build, size, exact):
    model = build(weights=None, init_weights=False, transform_input=True, aux_logits=False).eval()
    grey = torch.randn(2, 1, size, size)
    before = model(grey.expand(-1, 3, -1, -1))
    g = tg.load(model, input=(3, size, size)).input(channels=1)
    assert model.transform_input is False
    after = model.eval()(grey)
    assert torch.allclose(after, before, atol=1e-3 if exact else 0.2)
    g.undo()
    assert torch.equal(model.eval()(grey.expand(-1, 3, -1, -1)), before)


def test_what_timm_makes_transforms_from_follows():
    g = tg.load(timm.create_model("resnet18"), input=(3, 64, 64)).input(channels=5)
    assert g.module.pretrained_cfg["input_size"][0] == 5
    g.undo()
    assert g.module.pretrained_cfg["input_size"][0] == 3


def test_a_model_that_takes_any_size_is_left_alone_for_another(snapshot):
    g = tg.load("torchvision:resnet18@none", input=(3, 64, 64))
    before = snapshot(g.module)
    g.input(size=[96, 96])
    assert g.input_shape == (3, 96, 96)
    assert snapshot(g.module) == before


def test_a_refused_size_leaves_the_model_as_it_was(snapshot):
    g = tg.load("torchvision:vit_b_32@none", input=(3, 224, 224))
    before = snapshot(g.module)
    with pytest.raises(EditError, match="can't take images of 100×96"):
        g.input(size=[100, 96])
    assert snapshot(g.module) == before


def test_a_vit_takes_another_size_and_gives_it_back(snapshot):
    g = tg.load(timm.create_model("vit_tiny_patch16_224", depth=1).eval(), input=(3, 224, 224))
    before = snapshot(g.module)
    g.input(size=[96, 160])
    assert g.module(torch.randn(1, 3, 96, 160)).shape == (1, 1000)
    g.undo()
    assert snapshot(g.module) == before


def test_a_layer_that_is_no_convolution_says_what_to_do():
    with pytest.raises(EditError, match="read by Linear, whose channels can't be changed"):
        tg.load(nn.Linear(3, 4), input=(3,)).input(channels=5)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_stem_that_moves_pixels_into_channels_keeps_its_first_activation(channels):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    image = torch.randn(2, 1, 8, 8)
    wanted = model(image.repeat(1, 3, 1, 1))
    g = tg.load(model, input=(3, 8, 8)).input(channels=channels)
    assert torch.allclose(g.module(image.repeat(1, channels, 1, 1)), wanted, atol=1e-5)
    g.undo()
    assert torch.equal(model(image.repeat(1, 3, 1, 1)), wanted)


def test_grey_images_for_a_stem_that_moves_pixels_are_mended():
    model = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3, padding=1))
    g = tg.load(model, input=torch.randn(2, 1, 8, 8)).fix("channels")
    assert g.check() == ()
    assert g.module[1].in_channels == 4


def test_the_configuration_of_transformers_follows_and_is_taken_back():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8)
    g = tg.load(transformers.ViTModel(config), input=(3, 32, 32)).input(channels=1, size=(48, 64))
    assert (g.module.config.num_channels, g.module.config.image_size) == (1, [48, 64])
    g.undo().input(size=(64, 64))
    assert (g.module.config.num_channels, g.module.config.image_size) == (3, 64)
