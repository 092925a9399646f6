from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from tests.fixes.mending import Net, kept, mended
from torch import nn
from torchvision.models import resnet18, vgg11

import torchgraft as tg


@pytest.mark.parametrize(
    ("build", "shape", "told"),
    [
        (lambda: resnet18(weights=None), (3, 64, 64), "x.unsqueeze(0)"),
        (lambda: resnet18(weights=None), (2, 64, 64, 3), "x.permute(0, 3, 1, 2)"),
        (lambda: resnet18(weights=None), (64, 64, 3), "x.permute(2, 0, 1).unsqueeze(0)"),
        (lambda: vgg11(weights=None), (3, 64, 64), "x.unsqueeze(0)"),
        (lambda: timm.create_model("vit_tiny_patch16_224", depth=1), (3, 224, 224), "x.unsqueeze(0)"),
        (lambda: nn.Sequential(nn.Conv1d(4, 2, 3), nn.AdaptiveAvgPool1d(1)), (2, 9, 4), "x.permute(0, 2, 1)"),
    ],
)
def test_a_wrong_call_is_put_right_and_the_model_left_alone(build, shape, told, snapshot):
    g = tg.load(build(), input=torch.randn(shape))
    before = snapshot(g.module)
    (fix, *_), *_ = [one.fixes for one in g.check()]
    assert told in fix.sentence
    assert not fix.edits
    g.fix()
    assert not [one for one in g.check() if one.is_error]
    assert not g.recipe.edits
    assert snapshot(g.module) == before


def test_a_view_that_folds_the_map_into_the_batch_becomes_a_flatten():
    def forward(net, x):
        return net.fc(F.max_pool2d(net.conv(x), 4).view(-1, 16 * 5 * 5))

    model = Net(forward, conv=nn.Conv2d(3, 16, 3, padding=1), fc=nn.Linear(16 * 5 * 5, 10))
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    g, output = mended(model, torch.randn(4, 3, 40, 40))
    assert output.shape == (4, 10)
    assert kept(g, trained)


def test_a_flatten_of_everything_keeps_the_batch():
    def forward(net, x):
        return net.fc(torch.flatten(net.conv(x)))

    _, output = mended(Net(forward, conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(4 * 9, 5)), torch.randn(2, 3, 5, 5))
    assert output.shape == (2, 5)


def test_a_concatenation_joins_features_and_the_next_layer_is_widened():
    def forward(net, x):
        return net.out(torch.cat([net.a(x), net.b(x)]))

    model = Net(forward, a=nn.Linear(8, 4), b=nn.Linear(8, 4), out=nn.Linear(4, 5))
    g, output = mended(model, torch.randn(3, 8))
    assert output.shape == (3, 5)
    assert g.module.out.in_features == 8
