from __future__ import annotations

import pytest
import timm
import torch
from tests.fixes.mending import mended
from torch import nn
from torchvision.models import alexnet
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

import torchgraft as tg

VIT = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "num_classes": 10}


class Tokens(nn.Module):
    """A transformer of somebody's own with a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.first = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 65, 8))
        self.out = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        return self.out(tokens.mean(1))


def test_torchvisions_vit_gets_what_its_own_interpolation_gives():
    old = VisionTransformer(image_size=32, **VIT)
    new = VisionTransformer(image_size=64, **VIT)
    new.load_state_dict(interpolate_embeddings(image_size=64, patch_size=8, model_state=old.state_dict()))
    image = torch.randn(2, 3, 64, 64)
    g, output = mended(old, image)
    assert torch.equal(output, new.eval()(image))
    assert (g.module.image_size, g.module.seq_length) == (64, 65)


def test_timms_vit_gets_what_its_own_resampling_gives():
    given = {"img_size": 32, "num_classes": 10, "depth": 1}
    old = timm.create_model("vit_tiny_patch16_224", **given)
    new = timm.create_model("vit_tiny_patch16_224", **given).eval()
    new.load_state_dict(old.state_dict())
    new.set_input_size(img_size=64)
    image = torch.randn(2, 3, 64, 64)
    g, output = mended(old, image)
    assert torch.equal(output, new(image))
    assert g.module.patch_embed.img_size == (64, 64)


def test_a_table_of_a_model_of_ones_own_is_interpolated_and_its_extra_token_stays():
    model = Tokens()
    table = model.positions.detach().clone()
    g, output = mended(model, torch.randn(2, 3, 48, 48))
    assert output.shape == (2, 5)
    assert g.module.positions.shape == (1, 145, 8)
    assert torch.equal(g.module.positions[:, :1], table[:, :1])


def test_a_border_that_is_cut_off_is_said():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    fixes = tg.check(model, torch.randn(2, 3, 52, 50))[0].fixes
    assert "cuts 4 rows and 2 columns of the border" in next(one.sentence for one in fixes if one.name == "size")


def test_images_that_are_too_small_are_stretched_to_the_next_natural_size():
    model = alexnet(weights=None, num_classes=10).eval()
    g, output = mended(model, torch.randn(2, 3, 32, 32))
    image = torch.randn(2, 3, 32, 32)
    large = nn.functional.interpolate(image, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(g.module.eval()(image), alexnet_like(g, large))
    assert output.shape == (2, 10)


def alexnet_like(g: tg.Graft, image: torch.Tensor) -> torch.Tensor:
    plain = alexnet(weights=None, num_classes=10).eval()
    plain.load_state_dict({g.recipe.base_name(name): one for name, one in g.module.state_dict().items()})
    return plain(image)


@pytest.mark.slow
def test_windows_follow_another_size():
    model = timm.create_model("swin_tiny_patch4_window7_224")
    _, output = mended(model, torch.randn(2, 3, 256, 256))
    assert output.shape == (2, 1000)


def test_channels_and_size_follow_together():
    model = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=10)
    g, output = mended(model, torch.randn(2, 1, 96, 96))
    assert output.shape == (2, 10)
    assert g.recipe.edits[0].brief() == {"channels": 1, "size": [96, 96]}
