from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.fixes.mending import mended, offered
from tests.net import Net
from torch import nn
from torchvision.models import mobilenet_v3_small

import torchgraft as tg

IMAGE = torch.randn(2, 3, 32, 32)


def small() -> nn.Module:
    return Net(
        lambda net, x: net.classifier(net.body(x).mean((2, 3))),
        body=nn.Conv2d(3, 8, 3),
        classifier=nn.Linear(8, 20),
    )


def test_a_layer_with_a_name_that_the_model_does_not_know_gives_its_classes_to_the_head():
    model = mobilenet_v3_small(weights=None)
    model.fc = nn.Linear(576, 10)
    g, output = mended(model, torch.randn(2, 3, 64, 64))
    assert output.shape == (2, 10)
    assert not any(name.startswith("fc") for name in g.module.state_dict())


def test_several_orphans_go_at_once():
    model = small()
    model.classifer = nn.Sequential(model.classifier, nn.Linear(20, 5))
    model.head5 = nn.Linear(20, 5)
    g, output = mended(model, IMAGE)
    assert output.shape == (2, 5)
    assert sorted(g.module.state_dict()) == ["body.bias", "body.weight", "classifier.bias", "classifier.weight"]


def test_an_orphan_for_the_classes_that_are_there_is_no_wish_for_others():
    model = small()
    model.fc = nn.Linear(8, 20)
    assert offered(model, IMAGE) == []


def test_declared_classes_become_real_ones():
    model = small()
    model.classifier.out_features = 10
    g = tg.load(model, input=IMAGE)
    assert g.fix().module(IMAGE).shape == (2, 10)
    g.undo()
    assert (g.module.classifier.out_features, g.module(IMAGE).shape) == (10, (2, 20))


def test_declared_sizes_of_another_layer_are_put_right_without_touching_its_weight():
    model = small()
    model.body.out_channels = 30
    weight = model.body.weight.detach().clone()
    g = tg.load(model, input=IMAGE).fix()
    assert g.module.body.out_channels == 8
    assert torch.equal(g.module.body.weight, weight)


def test_a_softmax_before_the_loss_is_taken_out_wherever_it_stands():
    layers = {"fc": nn.Linear(4, 3)}
    for model in (
        nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)),
        Net(lambda net, x: net.last(net.fc(x)), **layers, last=nn.Softmax(dim=-1)),
        Net(lambda net, x: F.softmax(net.fc(x), dim=1), **layers),
        Net(lambda net, x: net.fc(x).softmax(-1), **layers),
    ):
        given = torch.randn(5, 4)
        linear = model[0] if isinstance(model, nn.Sequential) else model.fc
        _, output = mended(model, given)
        assert torch.equal(output, linear(given))


def test_an_output_layer_that_was_meant_to_be_replaced_goes_and_the_fix_says_what_goes_with_it():
    model = nn.Sequential()
    model.body, model.head = nn.Linear(4, 8), nn.Linear(8, 5)
    net = Net(lambda net, x: net.last(net.body(x).relu()), body=model.body, last=model.head, fc=nn.Linear(8, 3))
    (fix,) = tg.check(net, torch.randn(6, 4))[0].fixes
    assert "the old output layer is lost" in fix.sentence
    assert "loses 72 trained weights" in fix.sentence
    _, output = mended(net, torch.randn(6, 4))
    assert output.shape == (6, 3)


def test_a_warning_whose_mending_would_lose_weights_is_left_to_the_user():
    def forward(net, x):
        return net.fc(net.conv(x).view(-1, 6))

    model = Net(forward, conv=nn.Conv2d(3, 4, 3, padding=1), fc=nn.Linear(6, 5))
    example = torch.randn(2, 3, 3, 3)
    (finding, *_) = tg.check(model, example)
    assert finding.code == "S010"
    assert ["loses" in fix.sentence for fix in finding.fixes] == [True]
    assert not tg.load(model, input=example).fix().recipe.edits
    assert tg.load(model, input=example).fix("flatten").module(example).shape == (2, 5)
