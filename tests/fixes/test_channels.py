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


def odd_norm(rank: int, norm: int, *, conv: int = 32, linear: int = 32) -> nn.Module:
    """A network whose norm is for other channels than the layers around it."""
    layers = {2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d), 3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d)}[rank]
    first, then, last = layers[0](3, conv, 3, padding=1), layers[1](norm), layers[2](2)
    return nn.Sequential(first, then, nn.ReLU(), last, nn.Flatten(), nn.Linear(linear * 4**rank, 10))


@pytest.mark.parametrize(("rank", "norm"), [(2, 64), (2, 128), (3, 64)])
def test_a_norm_that_fits_neither_neighbour_is_the_culprit(rank, norm):
    model = odd_norm(rank, norm)
    example = torch.randn(2, 3, *[8] * rank)
    fixes = tg.check(model, example)[0].fixes
    assert fixes[0].name == "resize"
    assert "weights of a norm that fits neither of its neighbours" in fixes[0].sentence
    trained = model[5].weight
    g, output = mended(model, example)
    assert output.shape == (2, 10)
    assert g.module[1].num_features == 32
    assert g.module[5].weight is trained


def test_a_norm_inside_a_residual_block_is_the_culprit_too():
    for name in ("bn1", "bn2"):
        model = resnet18(weights=None)
        setattr(model.layer2[0], name, nn.BatchNorm2d(256))
        g, _ = mended(model, torch.randn(2, 3, 64, 64))
        assert [edit.brief() for edit in g.recipe.edits] == [
            {"at": f"layer2.0.{name}", "inputs": 128, "drops": 256}
        ]


def test_a_norm_that_fits_what_comes_behind_is_not_the_culprit():
    g, _ = mended(odd_norm(2, 32, conv=24), torch.randn(2, 3, 8, 8))
    assert g.module[0].out_channels == 32


def test_no_fix_pools_channels_into_the_places_of_a_map():
    for norm in (64, 128):
        for fix in tg.check(odd_norm(2, norm), torch.randn(2, 3, 8, 8))[0].fixes:
            assert not any("Pool" in str(getattr(edit, "module", "")) for edit in fix.edits)


def test_other_channels_before_a_flatten_are_fitted_and_the_map_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 5))
    example = torch.randn(2, 3, 8, 8)
    assert offered(model, example) == ["project", "resize", "resize-maker"]
    trained = model[3].weight.detach().clone()
    g, output = mended(model, example, "resize")
    assert output.shape == (2, 5)
    assert torch.equal(g.module[3].weight[:, : 32 * 64], trained)
    assert not g.module[3].weight[:, 32 * 64 :].any()
