from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from tests.fixes.mending import kept, mended
from tests.net import Net
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


def joined(kind: str, **widths: int) -> tuple[nn.Module, torch.Tensor]:
    """Two branches that a concatenation without a dimension joins, and a layer that is right for both."""
    a, b = widths.get("a", 8), widths.get("b", 8)

    def forward(net, x):
        return net.out(torch.cat([net.a(x), net.b(x)]))

    if kind == "map":
        parts = {"a": nn.Conv2d(3, a, 3), "b": nn.Conv2d(3, b, 3), "out": nn.Conv2d(a + b, 4, 1)}
        return Net(forward, **parts), torch.randn(4, 3, 8, 8)
    parts = {"a": nn.Linear(3, a), "b": nn.Linear(3, b), "out": nn.Linear(a + b, 4)}
    return Net(forward, **parts), torch.randn(4, 3) if kind == "vector" else torch.randn(4, 6, 3)


@pytest.mark.parametrize("b", [8, 32])
@pytest.mark.parametrize("kind", ["map", "vector", "sequence"])
def test_a_concatenation_of_samples_is_named_and_joins_features_instead(kind, b):
    model, example = joined(kind, b=b)
    (finding,) = tg.check(model, example)
    assert any("joins the samples (dim=0)" in fact for fact in finding.facts)
    assert "dim=1" in finding.hint
    own = [name for name, _ in model.named_parameters()]
    g, output = mended(model, example)
    assert output.shape[0] == 4
    assert output.shape[1 if kind == "map" else -1] == 4
    assert [edit.kind() for edit in g.recipe.edits] == ["rewire"]
    assert [name for name, _ in g.module.named_parameters()] == own


def test_a_concatenation_along_a_dimension_that_was_asked_for_is_not_blamed():
    def forward(net, x):
        return net.out(torch.cat([net.a(x), net.b(x)], 1))

    model = Net(forward, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(3, 8, 3), out=nn.Conv2d(12, 4, 1))
    (finding,) = tg.check(model, torch.randn(4, 3, 8, 8))
    assert not any("samples" in fact for fact in finding.facts)


def test_heads_that_do_not_divide_are_said_and_never_flattened():
    def forward(net, x):
        count, length, _ = x.shape
        parts = net.q(x).view(count, length, 4, -1).transpose(1, 2)
        return net.out((parts @ parts.transpose(-1, -2) @ parts).transpose(1, 2).reshape(count, length, -1))

    model = Net(forward, q=nn.Linear(90, 90), out=nn.Linear(90, 2))
    (finding,) = tg.check(model, torch.randn(2, 5, 90))
    assert finding.code == "S099"
    assert "to [2, 5, 4, -1]: 4 does not divide 90" in finding.facts
    assert "choose a size that divides 90" in finding.hint
    assert finding.fixes == ()


def test_a_view_to_fixed_sizes_says_how_many_values_there_are():
    model = Net(lambda net, x: net.fc(x).view(x.shape[0], 3, 4, 2), fc=nn.Linear(5, 20))
    (finding,) = tg.check(model, torch.randn(2, 5))
    assert "to [2, 3, 4, 2]: 24 values are asked for where there are 20" in finding.facts
    assert finding.fixes == ()
