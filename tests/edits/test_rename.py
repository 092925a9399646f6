from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import torchgraft as tg
from torchgraft.errors import EditError, SelectionError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe


def test_the_keys_change_and_the_base_still_loads(resnet18):
    base = {name: tensor.clone() for name, tensor in resnet18.module.state_dict().items()}
    resnet18.rename("fc", to="head").rename("layer1.0", to="first").rename("layer1.first.conv1", to="begin")
    keys = list(resnet18.module.state_dict())
    assert {"head.weight", "layer1.first.begin.weight"} <= set(keys)
    assert [resnet18.recipe.base_name(name) for name in keys] == list(base)
    resnet18.module.load_state_dict({name: base[resnet18.recipe.base_name(name)] for name in keys})


def test_code_that_uses_the_old_name_goes_on_and_setting_it_sets_the_new_one(resnet18):
    x = torch.randn(2, 3, 64, 64)
    wanted = resnet18.module.eval()(x)
    resnet18.rename("fc", to="head")
    assert torch.equal(resnet18.module(x), wanted)
    other = copy.deepcopy(resnet18.module)
    assert torch.equal(other(x), wanted)
    other.fc = nn.Linear(512, 3)
    assert other(x).shape == (2, 3)
    assert list(other._modules)[-1] == "head"
    torch.fx.symbolic_trace(resnet18.module)


def test_the_module_keeps_its_place_and_is_taken_back_exactly(resnet18, snapshot):
    before = snapshot(resnet18.module)
    cls = type(resnet18.module)
    resnet18.rename("bn1", to="norm")
    assert list(resnet18.module._modules)[:3] == ["conv1", "norm", "relu"]
    assert type(resnet18.module).__name__ == "ResNet"
    resnet18.undo()
    assert snapshot(resnet18.module) == before
    assert type(resnet18.module) is cls


def test_a_recipe_renames_again(resnet18):
    resnet18.rename("fc", to="head").head(7)
    other = replay(Recipe.from_yaml(resnet18.recipe.to_yaml()))
    ours, theirs = resnet18.module.state_dict(), other.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert other.module.head.out_features == 7


def test_timm_finds_its_classifier_under_the_new_name():
    g = tg.load("timm:resnet18@none", input=(3, 64, 64)).rename("fc", to="head")
    assert g.module.pretrained_cfg["classifier"] == "head"
    assert g.module.get_classifier() is g.module.head
    g.module.reset_classifier(5)
    assert g.module(torch.randn(2, 3, 64, 64)).shape == (2, 5)
    assert list(g.module._modules)[-1] == "head"


class ByKey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})

    def forward(self, x: Tensor) -> Tensor:
        return self.parts["b"](self.parts["a"](x))


def test_a_key_that_code_asks_for_can_not_go(snapshot):
    g = tg.load(ByKey(), input=(4,))
    before = snapshot(g.module)
    with pytest.raises(EditError, match="'a'"):
        g.rename("parts.a", to="c")
    assert snapshot(g.module) == before


@pytest.mark.parametrize(
    ("at", "to", "error", "match"),
    [
        ("fc", "layer1", EditError, "exists already"),
        ("fc", "forward", EditError, "exists already"),
        ("fc", "2nd", EditError, "can't be an attribute"),
        ("fcc", "head", SelectionError, "did you mean fc"),
    ],
)
def test_names_that_can_not_be_are_refused(resnet18, snapshot, at, to, error, match):
    before = snapshot(resnet18.module)
    with pytest.raises(error, match=match):
        resnet18.rename(at, to=to)
    assert snapshot(resnet18.module) == before
