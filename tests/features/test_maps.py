"""Channels that matter, filters, statistics: what is chosen, and by what."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import SelectionError
from torchgraft.features import feature_maps, first_filters, layer_statistics
from torchgraft.features.layout import Grids, maps_of


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 5, padding=2)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.relu(self.first(x))
        return self.fc(self.relu(self.second(x)).mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(1)
    return tg.load(Net(), input=(3, 12, 20))


@pytest.fixture
def images():
    return torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))


def test_the_channels_that_vary_most_come_first(net, images):
    (found,) = feature_maps(net, images, "first", top=4)
    wanted = net.module.first(images).detach()
    spread = wanted.std((2, 3), correction=0).mean(0)
    order = spread.argsort(descending=True)[:4]
    assert found.channels == tuple(order.tolist())
    assert torch.equal(found.maps, wanted[:, order])
    assert found.measures == pytest.approx(spread[order].tolist())
    assert (found.name, found.kind, found.shape, found.of) == ("first", "Conv2d", (6, 12, 20), 6)


def test_with_a_class_those_that_contribute_most(net, images):
    (found,) = feature_maps(net, images, "second", target=2)
    second = net.module.second(net.module.first(images).relu()).detach().requires_grad_()
    score = net.module.fc(second.relu().mean((2, 3)))[:, 2].sum()
    (gradient,) = torch.autograd.grad(score, [second])
    share = (gradient * second).sum((2, 3)).abs().mean(0)
    assert found.measures == pytest.approx(share.sort(descending=True).values.tolist(), rel=1e-4)
    assert found.measure == "contribution"


def test_vectors_are_bars_and_every_call_of_a_reused_layer_is_there(net, images):
    found = feature_maps(net, images, "relu", "fc")
    assert [(one.name, one.call, one.is_vector) for one in found] == [
        ("relu", 1, False),
        ("relu", 2, False),
        ("fc", 1, True),
    ]


def test_the_stages_where_no_layer_is_named(images):
    g = tg.load("torchvision:resnet18@none", input=(3, 64, 64))
    found = feature_maps(g, torch.randn(1, 3, 64, 64), top=2)
    assert [one.name for one in found][-4:] == ["layer1", "layer2", "layer3", "layer4"]


def test_a_layer_without_a_map_is_told(images):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = nn.GRU(20, 7, batch_first=True)
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.conv(x).mean() + self.rows(x[:, 0])[0].mean((0, 1))

    g = tg.load(Rows(), input=(3, 7, 20))
    with pytest.raises(SelectionError, match=r"nothing here gives maps(.|\n)*layers that do: conv"):
        feature_maps(g, torch.randn(1, 3, 7, 20), "rows")


@pytest.mark.parametrize(
    ("shape", "side", "image", "known", "wanted"),
    [
        ((2, 5, 3, 4), 1, (6, 8), (), (2, 5, 3, 4)),
        ((2, 3, 4, 5), -1, (6, 8), (), (2, 5, 3, 4)),
        ((2, 13, 5), -1, (6, 8), (), (2, 5, 3, 4)),
        ((2, 13, 5), -1, (8, 6), (), (2, 5, 4, 3)),
        ((2, 197, 5), -1, (224, 224), ((14, 14),), (2, 5, 14, 14)),
        ((2, 201, 5), -1, (224, 224), ((14, 14),), (2, 5, 14, 14)),
        ((2, 5, 1, 1), 1, (6, 8), (), None),
        ((2, 11, 5), 1, (6, 8), (), None),
    ],
)
def test_how_a_tensor_lies_on_the_image(shape, side, image, known, wanted):
    found = maps_of(torch.zeros(shape), side, Grids(image, known))
    assert (None if found is None else tuple(found.shape)) == wanted


def test_tokens_keep_their_places():
    tokens = torch.arange(13.0).reshape(1, 13, 1)
    found = maps_of(tokens, -1, Grids((6, 8)))
    assert torch.equal(found[0, 0], torch.arange(1.0, 13.0).reshape(3, 4))


def test_the_filters_of_the_first_convolution(net):
    found = first_filters(net, top=2)
    sizes = net.module.first.weight.detach().flatten(1).norm(dim=1)
    assert found.name == "first"
    assert found.sizes == pytest.approx(sizes.sort(descending=True).values[:2].tolist())
    assert torch.equal(found.weights, net.module.first.weight.detach()[list(found.filters)])
    assert first_filters(net, "second").weights.shape == (4, 6, 3, 3)
    with pytest.raises(SelectionError, match="no convolution"):
        first_filters(net, "fc")


def test_statistics_are_those_of_the_values(net, images):
    with torch.no_grad():
        net.module.first.bias[2] = -100.0
    found = {(one.name, one.call): one for one in layer_statistics(net, images)}
    values = net.module.first(images).detach()
    first, relu = found["first", 1], found["relu", 1]
    assert (first.mean, first.std) == pytest.approx(
        (float(values.mean()), float(values.std(correction=0))), rel=1e-5
    )
    assert (first.low, first.high) == pytest.approx((float(values.min()), float(values.max())))
    assert sum(first.counts) == values.numel()
    assert relu.zeros == pytest.approx(float((values <= 0).float().mean()))
    assert (relu.dead, relu.channels) == (pytest.approx(1 / 6), 6)
    assert "1 of 6" in str(layer_statistics(net, images))


def test_broken_values_are_counted_and_left_out(net, images):
    with torch.no_grad():
        net.module.fc.bias[0] = float("nan")
    found = layer_statistics(net, images, at=("fc",))
    assert found.layers[0].broken == pytest.approx(1 / 3)
    assert found.layers[0].mean == found.layers[0].mean
    assert "33.3\u00a0% NaN or infinite" in str(found)
    assert json.loads(json.dumps(found.as_data()))[0]["name"] == "fc"


def test_statistics_keep_no_values(net, images):
    found = layer_statistics(net, images.repeat(8, 1, 1, 1))
    assert found.layers[0].shape == (16, 6, 12, 20)


def test_a_backbone_that_holds_nearly_all_is_opened():
    g = tg.load("torchvision:swin_t@none", input=(3, 64, 64))
    found = [one.name for one in feature_maps(g, torch.randn(1, 3, 64, 64), top=1)]
    assert {f"features.{number}" for number in range(3, 7)} < set(found)
