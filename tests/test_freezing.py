"""Freezing a plain model by selectors, its optimizer with it."""

from __future__ import annotations

import pytest
import torch
from tests.integrations.nets import Net
from torch import nn

import torchgraft as tg
from torchgraft.errors import RecipeError, SelectionError, SourceError


def trainable(model: nn.Module) -> list[str]:
    return [name for name, one in model.named_parameters() if one.requires_grad]


def test_all_but_a_module_is_frozen() -> None:
    model = Net()
    assert len(tg.freeze(model, all_but="head")) == 8
    assert trainable(model) == ["head.weight", "head.bias"]


def test_selectors_are_those_of_a_graft() -> None:
    model = Net()
    tg.freeze(model, "**:BatchNorm2d")
    assert "body.1.weight" not in trainable(model)
    assert tg.unfreeze(model, "norms & body.1") == (*trainable(model),)
    assert "body.1.weight" in trainable(model)


def test_a_role_is_found_by_a_trace_where_no_module_has_its_name() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 4))
    tg.freeze(model, all_but="head", input=(3, 2, 2))
    assert trainable(model) == ["3.weight", "3.bias"]
    with pytest.raises(SourceError, match="input"):
        tg.freeze(model, all_but="head")


def test_frozen_parameters_leave_the_optimizer_and_come_back_to_their_group() -> None:
    model = Net()
    groups = [{"params": list(model.body.parameters()), "lr": 0.01}, {"params": list(model.head.parameters())}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    nn.functional.cross_entropy(model(torch.randn(4, 3, 6, 6)), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    before = model.body[0].weight.detach().clone()
    tg.freeze(model, "body", optimizer=optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [0, 2]
    optimizer.step()
    assert torch.equal(model.body[0].weight, before), "gradient and momentum were there, and moved nothing"
    tg.unfreeze(model, "body", optimizer=optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [8, 2]


def test_the_model_inside_of_a_wrapper_is_meant() -> None:
    model = Net()
    tg.freeze(torch.compile(model), all_but="head")  # type: ignore[arg-type]
    assert trainable(model) == ["head.weight", "head.bias"]


def test_a_graft_is_frozen_by_its_own_edit() -> None:
    graft = tg.load(Net())
    tg.freeze(graft, all_but="head")
    assert [edit.kind() for edit in graft.recipe.edits] == ["freeze"]


@pytest.mark.parametrize(("settings", "error"), [({}, RecipeError), ({"at": "haed"}, SelectionError)])
def test_what_says_nothing_is_refused(settings: dict[str, str], error: type[Exception]) -> None:
    model = Net()
    with pytest.raises(error):
        tg.freeze(model, **settings)  # type: ignore[arg-type]
    assert len(trainable(model)) == 10
