from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.fixes.mending import kept, mended, offered
from tests.net import Net
from torch import nn
from torchvision.models import resnet18

import torchgraft as tg


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("rank", "old", "new"),
    [(1, (20,), (33,)), (2, (8, 8), (16, 16)), (2, (8, 8), (12, 20)), (3, (4, 4, 4), (6, 6, 6))],
)
def test_a_map_of_another_size_is_brought_back_to_what_the_linear_layer_was_made_for(rank, old, new):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank](3, 4, 3, padding=1)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(4 * torch.Size(old).numel(), 5))
    image = torch.randn(2, 3, *old)
    before, trained = model(image), state(model)
    g, output = mended(model, torch.randn(2, 3, *new))
    assert output.shape == (2, 5)
    assert kept(g, trained)
    assert torch.equal(g.module(image), before)  # an exact no-op at the old size


@pytest.mark.parametrize(
    "flatten",
    [lambda x: torch.flatten(x, 1), lambda x: x.view(x.size(0), -1), lambda x: x.reshape(x.shape[0], -1)],
    ids=["flatten", "view", "reshape"],
)
def test_a_functional_flatten_is_no_hindrance(flatten):
    def forward(net, x):
        return net.fc(flatten(F.relu(net.conv(x))))

    model = Net(forward, conv=nn.Conv2d(3, 4, 3, padding=1), fc=nn.Linear(4 * 16, 5))
    trained = state(model)
    g, output = mended(model, torch.randn(2, 3, 6, 6))
    assert output.shape == (2, 5)
    assert kept(g, trained)
    assert [edit.kind() for edit in g.recipe.edits] == ["rewire"]


def test_a_lost_flatten_is_put_back():
    base = resnet18(weights=None)
    model = nn.Sequential(*list(base.children())[:-1], nn.Linear(512, 10))
    g, output = mended(model, torch.randn(2, 3, 64, 64))
    base.fc = g.module[-1]
    assert output.shape == (2, 10)
    image = torch.randn(2, 3, 64, 64)
    assert torch.allclose(base.eval()(image), g.module.eval()(image), atol=1e-5)


def test_a_lost_pooling_is_put_back_with_its_flatten():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 5))
    example = torch.randn(2, 3, 9, 9)
    assert "averages the 7×7 map to 1×1" in tg.check(model, example)[0].fixes[0].sentence
    _, output = mended(model, example)
    assert output.shape == (2, 5)


def test_a_view_that_does_not_divide_becomes_a_flatten():
    def forward(net, x):
        return net.fc(net.conv(x).view(-1, 4 * 16))

    model = Net(forward, conv=nn.Conv2d(3, 4, 3, padding=1), fc=nn.Linear(4 * 16, 5))
    trained = state(model)
    g, output = mended(model, torch.randn(2, 3, 5, 5))
    assert output.shape == (2, 5)
    assert kept(g, trained)


def test_two_widths_that_do_not_agree_are_fitted_in_every_way_that_works():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(12, 2))
    assert offered(model, torch.randn(4, 8)) == ["resize", "project", "resize-maker"]
    g, output = mended(model, torch.randn(4, 8))
    assert output.shape == (4, 2)
    assert g.module[2].in_features == 16


def test_a_norm_for_other_features_is_resized():
    for norm in (nn.BatchNorm1d(8), nn.LayerNorm(8)):
        _, output = mended(nn.Sequential(nn.Linear(8, 16), norm, nn.Linear(16, 2)), torch.randn(4, 8))
        assert output.shape == (4, 2)


def test_a_flatten_before_a_convolution_is_taken_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1))
    g, output = mended(model, torch.randn(2, 3, 9, 9))
    assert output.shape == (2, 6, 1, 1)
    assert g.recipe.edits[0].brief() == {"at": "1"}


def test_channels_that_come_last_are_projected_there():
    class Stage(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.fc(self.norm(x))

    model = nn.Sequential(nn.Linear(3, 8), Stage(8), Stage(16), nn.Linear(16, 2))
    example = torch.randn(2, 4, 4, 3)
    assert set(offered(model, example)) >= {"project", "resize-maker"}
    _, output = mended(model, example, "project")
    assert output.shape == (2, 4, 4, 2)


def test_a_head_of_another_width_behind_global_pooling_loses_nothing():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    trained = model[3].weight.detach().clone()
    g, output = mended(model, torch.randn(2, 3, 9, 9))
    assert output.shape == (2, 4)
    assert torch.equal(g.module[3].weight[:, :6], trained)
