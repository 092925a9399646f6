from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.fixes.mending import kept, mended, offered
from torch import nn
from torchvision.models import resnet18

import torchgraft as tg


class Excite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.f(x.mean((2, 3)))[:, :, None, None]


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)) + x)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_other_channels_are_folded_so_that_a_grey_image_gives_the_same(channels):
    model = resnet18(weights=None).eval()
    grey = torch.randn(2, 1, 64, 64)
    before = model(grey.expand(-1, 3, -1, -1))
    g, _ = mended(model, torch.randn(2, channels, 64, 64))
    assert g.module.conv1.in_channels == channels
    assert torch.allclose(g.module.eval()(grey.expand(-1, channels, -1, -1)), before, atol=1e-4)


def test_a_wider_stage_is_projected_or_its_consumers_or_maker_resized():
    model = resnet18(weights=None)
    model.layer3 = nn.Sequential(nn.Conv2d(128, 512, 3, 2, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU())
    example = torch.randn(2, 3, 64, 64)
    assert offered(model, example) == ["project", "resize", "resize-maker"]
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    g, output = mended(model, example)
    assert output.shape == (2, 1000)
    assert kept(g, trained)
    assert (
        sum(one.numel() for one in g.module.parameters())
        - sum(trained[name].numel() for name, _ in model.named_parameters() if name in trained)
        == 512 * 256 + 256
    )


def test_attention_for_other_channels_is_resized_at_both_ends():
    body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), Excite(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    g, output = mended(nn.Sequential(*body, nn.Linear(16, 5)), torch.randn(2, 3, 8, 8))
    assert output.shape == (2, 5)
    assert (g.module[1].f[0].in_features, g.module[1].f[2].out_features) == (16, 16)


def test_a_lossy_fix_says_what_it_loses_and_comes_last():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(4, 6, 3))
    fixes = tg.check(model, torch.randn(2, 3, 9, 9))[0].fixes
    assert fixes[0].sentence.endswith("keeps every trained weight")
    assert fixes[-1].sentence.endswith("loses 112 trained weights")


def test_groups_that_do_not_divide_are_refused_with_those_that_do():
    g = tg.load(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)), input=(3, 9, 9))
    with pytest.raises(tg.errors.EditError, match="num_groups=16"):
        g.replace("1", {"nn.GroupNorm": {"num_groups": 32}})
