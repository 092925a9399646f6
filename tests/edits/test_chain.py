"""Wrappers of torch.fx: for modules that take more, or less, than a Sequential passes on."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import torchgraft as tg
from torchgraft.errors import EditError
from torchgraft.surgery.chain import beside, chained, gated, passing, routed, skipped


class Scaled(nn.Module):
    def forward(self, x: Tensor, factor: float = 1.0, *, shift: float = 0.0) -> Tensor:
        return x * factor + shift


class Anything(nn.Module):
    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, 1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scaled, self.head = Scaled(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scaled(x, factor=2.0, shift=1.0))


X = torch.randn(2, 4)


def test_further_arguments_reach_the_wrapped_module():
    double = nn.Linear(4, 4)
    behind = chained("p", [("base", Scaled()), ("new", double)], after=True)
    assert torch.equal(behind(X, 3.0, shift=1.0), double(X * 3 + 1))
    front = chained("p", [("base", Scaled()), ("new", double)], after=False)
    assert torch.equal(front(X, factor=3.0), double(X) * 3)


def test_a_forward_of_any_number_of_arguments_is_refused():
    with pytest.raises(EditError, match="any number of arguments"):
        chained("p", [("base", Anything()), ("new", nn.Identity())], after=True)


def test_a_route_takes_one_argument_or_joins_a_list():
    assert torch.equal(routed(nn.Identity(), ["a", "b"], feed=1, dim=1, pair=False)(None, X), X)
    joined, nothing = routed(nn.Identity(), ["maps"], feed=None, dim=1, pair=True)([X, X])
    assert torch.equal(joined, torch.cat([X, X], 1))
    assert nothing is None


def test_a_gate_is_the_identity_and_learns():
    module = gated(nn.Linear(4, 4))
    assert torch.equal(module(X), X)
    module(X).sum().backward()
    assert module.gate.grad != 0


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_wrappers_are_copied_and_pickled_as_plain_modules(again):
    module = chained("p", [("base", nn.Linear(4, 4)), ("new", gated(nn.Linear(4, 4)))], after=True)
    assert torch.equal(again(module)(X), module(X))
    assert not any(type(part).__module__.startswith("torchgraft") for part in module.modules())


def test_the_base_finds_its_weights_behind_a_wrapper():
    g = tg.load(Model(), input=(4,)).insert(nn.Linear(4, 4), before="head", name="new", start="identity")
    assert g.recipe.base_name("head.base.weight") == "head.weight"
    assert torch.equal(g.module(X), g.module.head.base(X * 2 + 1))


def test_a_route_names_an_argument_that_is_there():
    with pytest.raises(EditError, match="there is no argument 2"):
        tg.load(Model(), input=(4,)).route("head", ["x"], feed=2)


def test_what_runs_beside_a_module_gets_its_first_argument():
    double = nn.Linear(4, 4)
    both = beside("p", [("base", Scaled()), ("new", double)])
    torch.testing.assert_close(both(X, factor=3.0, shift=1.0), X * 3 + 1 + double(X))


@pytest.mark.parametrize(
    ("kind", "starts", "wanted"),
    [("residual", False, 4 * X), ("gate", False, X), ("residual", True, 3 * X), ("gate", True, 3 * X)],
)
def test_what_a_module_is_given_goes_past_it(kind, starts, wanted):
    torch.testing.assert_close(skipped("p", Scaled(), kind=kind, starts=starts)(X, 3.0), wanted)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_what_passes_its_input_on_takes_anything(again):
    assert again(passing("tensor"))(X, 3, key=None) is X
    assert again(passing("single"))(X) == (X,)
    assert again(passing("pair"))(X, X, X)[1] is None
