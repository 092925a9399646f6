from __future__ import annotations

import copy

import pytest
import torch
from tests.train.stripes import DATA, SETTINGS, Tiny, graft
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import torchgraft as tg
from torchgraft.errors import SelectionError, TrainError
from torchgraft.train.checkpointing import checkpointed, checkpointed_modules


class Stack(nn.Module):
    """Blocks with statistics, dropout and a buffer that every pass in training mode moves."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(spectral_norm(nn.Linear(6, 6)), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3))
            for _ in range(3)
        )
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.fc(x)


def passed(model, chosen):
    """Take two steps of SGD on fixed data, and give all that the model holds."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    with checkpointed(chosen(model)):
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("asked", ["blocks", "blocks.*", ("blocks.0", "blocks.2"), "blocks.1.1", "**"])
def test_weights_statistics_and_buffers_come_out_bit_equal(asked):
    torch.manual_seed(0)
    plain = Stack()
    again = copy.deepcopy(plain)
    ours = passed(again, lambda model: checkpointed_modules(model, asked).values())
    theirs = passed(plain, lambda model: ())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_nothing_is_left_in_the_model_also_after_an_error(snapshot):
    model = Stack()
    before = snapshot(model)
    with (
        pytest.raises(ValueError, match="on the way"),
        checkpointed(checkpointed_modules(model, "blocks").values()),
    ):
        raise ValueError("on the way")
    assert snapshot(model) == before
    assert all("forward" not in vars(part) for part in model.modules())


def test_a_forward_of_the_modules_own_comes_back():
    model = Stack()
    own = model.fc.__dict__["forward"] = lambda x: x
    with checkpointed([model.fc]):
        assert model.fc.forward is not own
    assert model.fc.__dict__["forward"] is own


def test_without_gradients_a_block_just_runs():
    model = Stack().eval()
    with checkpointed(model.blocks), torch.no_grad():
        given = torch.randn(2, 6)
        assert torch.equal(model(given), model(given))


def test_the_outermost_modules_are_taken_and_a_list_stands_for_its_entries():
    assert list(checkpointed_modules(Stack(), ("blocks", "blocks.0.1"))) == ["blocks.0", "blocks.1", "blocks.2"]
    assert list(checkpointed_modules(Stack(), "blocks.0.**")) == ["blocks.0"]
    assert checkpointed_modules(Stack(), ()) == {}


def test_a_selector_that_matches_nothing_is_told_before_training():
    with pytest.raises(SelectionError, match="stemm"):
        graft().train(DATA, checkpointing="stemm", **SETTINGS)


def test_a_scripted_module_is_refused():
    model = nn.Sequential(torch.jit.script(nn.Linear(2, 2)))
    with pytest.raises(TrainError, match="scripted"):
        checkpointed_modules(model, "0")


@pytest.mark.parametrize("settings", [{}, {"layer_decay": 0.9, "accumulate": 2, "precision": "bf16"}])
def test_training_with_checkpointing_gives_the_same_model_bit_for_bit(settings):
    plain, again = graft(), graft()
    quick = {**SETTINGS, **settings, "epochs": 2}
    plain.train(DATA, **quick)
    again.train(DATA, checkpointing=["stem", "drop"], **quick)
    ours, theirs = again.module.state_dict(), plain.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert isinstance(again.module, Tiny)


def test_a_recipe_keeps_what_was_computed_again():
    g = graft()
    g.train(DATA, checkpointing="stem", accumulate=2, **{**SETTINGS, "epochs": 1})
    assert "checkpointing:" in g.recipe.to_yaml()
    assert tg.Recipe.from_yaml(g.recipe.to_yaml()).train.accumulate == 2
