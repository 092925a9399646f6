from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from torchgraft.probes.weights import match


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return models.resnet18(weights=None)


def test_a_model_holds_its_own_weights(trained):
    found = match(trained, trained.state_dict())
    assert found.held
    assert len(found.values.compared) == 21


def test_another_drawing_of_the_same_model_does_not(trained):
    found = match(models.resnet18(weights=None), trained.state_dict())
    assert not found.held
    assert len(found.values.strange) == 21


def test_a_model_that_was_trained_on_still_resembles_its_base(trained):
    tuned = copy.deepcopy(trained)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter += 0.1 * parameter.std() * torch.randn_like(parameter)
    found = match(tuned, trained.state_dict())
    assert (found.values.strange, len(found.values.moved)) == ((), 21)


def test_the_cast_of_a_half_file_is_no_difference(trained):
    half = {name: one.half() if one.is_floating_point() else one for name, one in trained.state_dict().items()}
    loaded = models.resnet18(weights=None)
    loaded.load_state_dict(half)
    found = match(loaded, half)
    assert (found.values.strange, found.values.moved) == ((), ())
    assert set(found.values.casts) == {("float32", "float16")}


def test_nothing_is_changed(trained, snapshot):
    state = trained.state_dict()
    before, given = snapshot(trained), {name: one.clone() for name, one in state.items()}
    match(trained, state)
    assert snapshot(trained) == before
    assert all(torch.equal(state[name], given[name]) for name in given)


def test_a_model_on_meta_has_no_values_to_compare(trained):
    with torch.device("meta"):
        empty = models.resnet18(weights=None)
    found = match(empty, trained.state_dict())
    assert (found.values.compared, len(found.fit.plan.taken)) == ((), 122)


def test_what_can_not_be_read_is_recorded(tmp_path):
    found = match(nn.Linear(2, 2), tmp_path / "none.pt")
    assert "there is no file" in found.problem
