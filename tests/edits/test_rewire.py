from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe

X = torch.randn(2, 3, 8, 8)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)
        self.width = 3

    def forward(self, x):
        y = F.dropout(F.relu(self.body(x)), 0.5, training=self.training)
        return y + x


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.act(self.conv(self.act(x)))


def test_a_module_is_put_on_one_operand_and_the_keys_stay(snapshot):
    g = tg.load(Residual(), input=X)
    before, x = snapshot(g.module), X
    g.rewire(operation="add", operand=1, module={"nn.Conv2d": {"out_channels": 3, "kernel_size": 1}}, name="short")
    model = g.module.eval()
    assert list(model.state_dict()) == ["body.weight", "body.bias", "short.weight", "short.bias"]
    assert torch.equal(model(x), F.relu(model.body(x)) + model.short(x))
    assert isinstance(model, Residual)
    assert model.width == 3
    model.train()
    g.undo()
    assert snapshot(g.module) == before
    assert torch.equal(g.module.eval()(x), F.relu(g.module.body(x)) + x)


def test_what_follows_the_training_flag_still_does():
    g = tg.load(Residual(), input=X)
    g.rewire(operation="add", operand=1, module={"nn.Identity": {}})
    torch.manual_seed(0)
    got = g.module.train()(X)
    torch.manual_seed(0)
    assert torch.equal(got, F.dropout(F.relu(g.module.body(X)), 0.5) + X)
    assert torch.equal(g.module.eval()(X), F.relu(g.module.body(X)) + X)


def test_a_rewritten_module_is_copied_saved_as_a_state_dict_and_rewritten_again():
    g = tg.load(Residual(), input=X)
    g.rewire(operation="add", operand=1, module={"nn.Conv2d": {"out_channels": 3, "kernel_size": 1}}, name="short")
    g.rewire(operation="relu", becomes="nothing")
    model = g.module.eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.short.weight.zero_()
    assert not torch.equal(other(X), model(X))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), model(X))
    assert torch.equal(model(X), model.body(X) + model.short(X))
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(model)  # never silently without its new forward


def test_a_recipe_replays_a_rewire():
    g = tg.load("torchvision:resnet18@none", input=(3, 64, 64))
    g.rewire(
        at="layer1.0", operation="add", operand=1, module={"nn.Conv2d": {"out_channels": 64, "kernel_size": 1}}
    )
    again = replay(Recipe.from_yaml(g.recipe.to_yaml()))
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(again.module.eval()(image), g.module.eval()(image))


def test_one_call_of_a_shared_layer_is_reached():
    g = tg.load(Twice(), input=X)
    g.rewire(operation="act", number=1, module={"nn.BatchNorm2d": {}}, name="norm")
    model = g.module.eval()
    assert torch.equal(model(X), F.relu(model.norm(model.conv(F.relu(X)))))


def test_arguments_are_set_by_name():
    class Joined(nn.Module):
        def forward(self, x):
            return torch.cat([x, x])

    g = tg.load(Joined(), input=X)
    g.rewire(operation="cat", arguments={"dim": 1})
    assert g.module(X).shape == (2, 6, 8, 8)
    with pytest.raises(EditError, match="'cat' has no argument 'axes'"):
        g.rewire(operation="cat", arguments={"axes": 1})


@pytest.mark.parametrize("flag", [False, True])
def test_an_optional_argument_that_is_not_given_keeps_its_default(flag):
    class Masked(nn.Module):
        def forward(self, x, mask=None):
            return torch.relu(x if mask is None else x * mask)

    g = tg.load(Masked(), input=(X, X) if flag else X)
    g.rewire(operation="relu", becomes="nothing")
    assert torch.equal(g.module(X, X) if flag else g.module(X), X * X if flag else X)


class Branching(nn.Module):
    def forward(self, x):
        return torch.relu(x) if x.sum() > 0 else x


class Training(nn.Module):
    def forward(self, x):
        return torch.relu(x) if self.training else torch.relu(torch.tanh(x))


class Keeping(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return torch.relu(x)


@pytest.mark.parametrize(
    ("model", "reason"),
    [(Branching(), "depends on values"), (Training(), "other things in training"), (Keeping(), "keeps tensors")],
)
def test_a_forward_that_is_no_graph_is_refused_and_left_as_it_was(model, reason, snapshot):
    g = tg.load(model, input=X)
    before = snapshot(g.module)
    with pytest.raises(EditError, match=reason):
        g._do(tg.edits.Rewire(operation="relu", becomes="nothing"))
    assert snapshot(g.module) == before
    assert not getattr(model, "seen", [])


def test_a_call_or_operand_that_is_not_there_is_named():
    g = tg.load(Residual(), input=X)
    with pytest.raises(EditError, match="calls 'cat' 0 times"):
        g.rewire(operation="cat", becomes="nothing")
    with pytest.raises(EditError, match="takes 2 tensors"):
        g.rewire(operation="add", operand=2, module={"nn.Identity": {}})
    with pytest.raises(RecipeError, match="names module, arguments or becomes"):
        g.rewire(operation="add")


def test_it_says_what_it_does():
    edit = tg.edits.Rewire(at="net", operation="cat", number=1, arguments={"dim": 1})
    assert edit.sentence() == "call 1 of cat in net gets dim=1"
    assert tg.edits.Rewire(operation="view", becomes="flatten", arguments={"start_dim": 1}).sentence() == (
        "view in the model becomes flatten(start_dim=1)"
    )
