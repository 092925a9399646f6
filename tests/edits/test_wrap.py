"""Wrap: a module inside another that calls it."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.edits.again import again
from torch import Tensor, nn

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe

X = torch.randn(2, 3, 64, 64)


class Scaled(nn.Module):
    """Multiplies what another gives by a learnt number for each channel."""

    def __init__(self, inner: nn.Module, channels: int = 1) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale


@pytest.mark.parametrize("kind", ["residual", "gate"])
def test_a_wrapper_that_starts_as_the_identity_keeps_the_trained_function_and_learns(resnet18, kind):
    before = resnet18.module.eval()(X)
    resnet18.wrap("layer3.1", kind, start="identity")
    assert torch.equal(resnet18.module(X), before)
    resnet18.module(X).sum().backward()
    assert resnet18.module.layer3[1].gate.grad != 0
    again(resnet18)


@pytest.mark.parametrize(("kind", "gate"), [("residual", None), ("gate", 0.0), ("gate", 0.5)])
def test_a_wrapper_adds_what_the_module_is_given(resnet18, kind, gate):
    block, x = copy.deepcopy(resnet18.module.layer3[1]).eval(), torch.randn(2, 256, 4, 4)
    resnet18.wrap("layer3.1", kind)
    assert resnet18.check() == ()
    wrapped = resnet18.module.layer3[1].eval()
    if gate:
        wrapped.gate.data.fill_(gate)
    torch.testing.assert_close(wrapped(x), x + (1 if gate is None else gate) * block(x))
    assert resnet18.recipe.base_name("layer3.1.base.conv1.weight") == "layer3.1.conv1.weight"


def test_shapes_that_can_not_be_added_are_told_with_what_would(resnet18, snapshot):
    before = snapshot(resnet18.module)
    with pytest.raises(EditError, match=r"given \[N, 128, 8, 8\] and gives \[N, 256, 4, 4\](.|\n)*fix='adapt'"):
        resnet18.wrap("layer3", "residual")
    assert snapshot(resnet18.module) == before
    same = resnet18.module.eval()(X)
    resnet18.insert(nn.Identity(), around="layer3", start="identity", fix="adapt")
    assert torch.equal(resnet18.module(X), same)


@pytest.mark.parametrize("handed", [Scaled, lambda module: nn.Sequential(nn.Identity(), module)])
def test_what_takes_a_module_may_be_handed_over(resnet18, snapshot, handed):
    block, before = resnet18.module.layer3[1], snapshot(resnet18.module)
    resnet18.wrap("layer3.1", handed)
    inner = "inner" if handed is Scaled else "1"
    assert resnet18.module.layer3[1].get_submodule(inner) is block
    assert resnet18.recipe.base_name(f"layer3.1.{inner}.bn1.bias") == "layer3.1.bn1.bias"
    resnet18.undo()
    assert snapshot(resnet18.module) == before


def test_a_class_of_ones_own_is_called_where_it_is_trusted():
    g = tg.load("resnet18@none", input=(3, 64, 64), trust=True)
    g.wrap("layer3.1", {f"{__name__}:Scaled": {"channels": 256}})
    assert g.module.layer3[1].scale.shape == (256, 1, 1)
    other = replay(Recipe.from_yaml(g.recipe.to_yaml()), trust=True)
    assert torch.equal(other.module.layer3[1].scale, g.module.layer3[1].scale)
    with pytest.raises(EditError, match="runs code of your own"):
        replay(Recipe.from_yaml(g.recipe.to_yaml()))


def test_a_wrapper_goes_where_the_model_is():
    g = tg.load("resnet18@none", input=(3, 64, 64))
    model = g.module.double().eval()
    g = tg.load(model, input=(3, 64, 64)).wrap("layer3.1", Scaled).wrap("layer1.1", "gate", start="identity")
    assert {p.dtype for p in g.module.parameters()} == {torch.float64}
    assert not any(module.training for module in g.module.modules())


def _replaces(module: nn.Module) -> nn.Module:
    module.conv1 = nn.Identity()
    return nn.Sequential(module)


@pytest.mark.parametrize(
    ("handed", "match"),
    [
        (lambda module: module, "gives the module itself"),
        (copy.deepcopy, "nothing that holds the module"),
        (lambda module: None, "nothing that holds the module"),
        (_replaces, "changes the module that it is given"),
        (lambda module: 1 / 0, "can't be built: division by zero"),
        ({"torch.nn:Sequential": {}}, "runs code of your own"),
    ],
)
def test_a_wrapper_that_does_not_hold_the_module_as_it_is_is_refused(resnet18, snapshot, handed, match):
    before = snapshot(resnet18.module)
    with pytest.raises(EditError, match=match):
        resnet18.wrap("layer3.1", handed)
    assert snapshot(resnet18.module) == before


@pytest.mark.parametrize("given", ["resid", {"nn.Linear": {"out_features": 3}}, 3])
def test_what_is_no_wrapper_is_refused(resnet18, given):
    with pytest.raises(RecipeError, match="a wrapper is 'residual', 'gate'"):
        resnet18.wrap("layer3.1", given)
