from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import models

from torchgraft.errors import RecipeError, SelectionError
from torchgraft.params.groups import parameter_groups

MODEL = models.resnet18(weights=None)
SELECTORS = ["conv1.**", "layer[12].**", "layer3", "fc", "**:BatchNorm2d", "**"]


@given(st.lists(st.sampled_from(SELECTORS), unique=True), st.sets(st.sampled_from(["layer1", "fc", "layer4"])))
def test_each_trainable_parameter_is_in_exactly_one_group_and_no_frozen_one_in_any(selectors, frozen):
    for name, parameter in MODEL.named_parameters():
        parameter.requires_grad = not name.startswith(tuple(frozen)) if frozen else True
    groups = parameter_groups(MODEL, {text: {"lr": 0.1} for text in selectors}, {"lr": 0.01})
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, p in MODEL.named_parameters() if p.requires_grad)
    if groups:
        torch.optim.SGD(groups, lr=1.0)


def test_the_last_selector_wins():
    for parameter in MODEL.parameters():
        parameter.requires_grad = True
    groups = parameter_groups(MODEL, {"**": {"lr": 1.0}, "fc": {"lr": 2.0}}, {})
    assert {group["lr"]: len(group["params"]) for group in groups} == {1.0: 60, 2.0: 2}


def test_a_selector_that_matches_nothing_is_told():
    with pytest.raises(SelectionError, match="did you mean fc"):
        parameter_groups(MODEL, {"fcc": {"lr": 1.0}}, {})


@pytest.mark.parametrize(
    ("settings", "default", "match"),
    [
        ({"fc": 1}, {}, "1 are no settings"),
        ({"fc": {"lrr": 1.0}}, {}, "did you mean lr"),
        ({}, {"wieght_decay": 0.1}, "did you mean weight_decay"),
        (["fc"], {}, "a list names no groups"),
    ],
)
def test_settings_that_no_optimizer_takes_are_refused(settings, default, match):
    with pytest.raises(RecipeError, match=match):
        parameter_groups(MODEL, settings, default)


def test_settings_of_ones_own_are_taken():
    for parameter in MODEL.parameters():
        parameter.requires_grad = True
    (group,) = parameter_groups(MODEL, {}, {"lr": 0.1, "lr_scale": 0.5, "name": "all", "use_muon": True})
    assert group["lr_scale"] == 0.5
