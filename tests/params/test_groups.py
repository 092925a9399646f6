from __future__ import annotations

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.errors import RecipeError, SelectionError
from torchgraft.params.groups import check_groups, parameter_groups

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


def free():
    return MODEL.requires_grad_(True)


def test_settings_of_ones_own_are_taken():
    (group,) = parameter_groups(free(), {}, {"lr": 0.1, "name": "all", "use_muon": True})
    assert (group["name"], group["use_muon"]) == ("all", True)


def test_a_scale_as_in_timms_groups_is_put_into_the_rate():
    (group,) = parameter_groups(free(), {}, {"lr": 0.1, "lr_scale": 0.5})
    assert group["lr"] == 0.05
    assert "lr_scale" not in group


def test_any_setting_of_an_optimizer_goes_for_a_group():
    groups = parameter_groups(free(), {"fc": {"betas": (0.5, 0.9), "eps": 1e-6}}, {"lr": 0.1})
    made = torch.optim.AdamW(groups)
    assert [group["betas"] for group in made.param_groups] == [(0.9, 0.999), (0.5, 0.9)]
    momenta = parameter_groups(free(), {"fc": {"momentum": 0.9}}, {"lr": 0.1})
    assert [group["momentum"] for group in torch.optim.SGD(momenta).param_groups] == [0, 0.9]


# weight decay


def decays(groups):
    return {name: group.get("weight_decay") for group in groups for name in group["names"]}


def test_norms_and_biases_are_spared_wherever_a_decay_is_named():
    found = decays(parameter_groups(free(), {}, {"lr": 0.1, "weight_decay": 0.05}))
    assert {name for name, decay in found.items() if decay == 0} == {
        name for name, one in MODEL.named_parameters() if one.dim() == 1
    }
    assert found["conv1.weight"] == 0.05


def test_a_decay_of_one_group_spares_there_alone():
    found = decays(parameter_groups(free(), {"layer4": {"weight_decay": 0.1}}, {"lr": 0.1}))
    assert found["layer4.0.bn1.weight"] == 0
    assert found["layer4.0.conv1.weight"] == 0.1
    assert found["layer3.0.bn1.weight"] is None


def test_nobody_speaks_of_decay_and_nothing_is_split():
    assert len(parameter_groups(free(), {"fc": {"lr": 1.0}}, {"lr": 0.1})) == 2


def test_no_decay_can_be_switched_off_and_chosen():
    plain = {"lr": 0.1, "weight_decay": 0.05}
    assert set(decays(parameter_groups(free(), {}, plain, no_decay=())).values()) == {0.05}
    found = decays(parameter_groups(free(), {}, plain, no_decay="fc"))
    assert {name for name, decay in found.items() if decay == 0} == {"fc.weight", "fc.bias"}


def test_a_group_of_norms_alone_that_names_its_decay_keeps_it():
    groups = parameter_groups(free(), {"norms": {"weight_decay": 0.01}}, {"lr": 0.1, "weight_decay": 0.05})
    found = decays(groups)
    assert (found["bn1.weight"], found["conv1.weight"], found["fc.bias"]) == (0.01, 0.05, 0)


def test_what_the_model_itself_wants_spared_is_spared():
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    found = decays(parameter_groups(model, {}, {"lr": 0.1, "weight_decay": 0.05}))
    assert (found["cls_token"], found["pos_embed"], found["head.weight"]) == (0, 0, 0.05)


def test_a_layer_scale_has_no_decay():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma, self.fc = nn.Parameter(torch.ones(4)), nn.Linear(4, 2)

    found = decays(parameter_groups(Scaled(), {}, {"lr": 0.1, "weight_decay": 0.05}))
    assert found == {"gamma": 0, "fc.weight": 0.05, "fc.bias": 0}


# what is said


def test_groups_print_as_a_table_that_leaves_no_parameter_out():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    groups = parameter_groups(model, {"2": {"lr": 1e-2, "betas": (0.5, 0.9)}}, {"lr": 1e-3, "weight_decay": 0.05})
    assert str(groups) == (
        "group                    lr  weight decay  tensors  parameters  other settings\n"
        "all others            0.001          0.05        1          12\n"
        "all others, no decay  0.001             0        3           9\n"
        "2                      0.01          0.05        1           6  betas (0.5, 0.9)\n"
        "2, no decay            0.01             0        1           2  betas (0.5, 0.9)\n"
        "in all                                           6          29"
    )


def test_the_chapters_three_layers_leave_no_other_out():
    g = tg.load("torchvision:resnet18@none", input=(3, 64, 64))
    groups = g.groups({"conv1.**": {"lr": 1e-4}, "layer1": {}, "fc": {"lr": 1e-2}}, lr=1e-3)
    assert sum(len(group["params"]) for group in torch.optim.SGD(groups, momentum=0.9).param_groups) == 62
    assert "all others" in str(groups)
    assert "in all" in str(groups)


def test_groups_of_several_selectors_take_away_too():
    groups = parameter_groups(free(), {("layer4.**", "not norms"): {"lr": 1.0}}, {"lr": 0.1})
    assert {group["lr"]: len(group["params"]) for group in groups} == {0.1: 57, 1.0: 5}


def test_groups_that_somebody_spoilt_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = parameter_groups(model, {"1": {"lr": 1.0}}, {"lr": 0.1})
    check_groups(groups, model)
    with pytest.raises(RecipeError, match=r"1\.weight is in no groups"):
        check_groups(groups[:1], model)
    with pytest.raises(RecipeError, match=r"0\.weight is in 2 groups"):
        check_groups([*groups, groups[0]], model)
    model[0].weight.requires_grad_(False)
    with pytest.raises(RecipeError, match=r"0\.weight is frozen, but in a group"):
        check_groups(groups, model)


# layer-wise decay


def test_layer_decay_needs_a_rate():
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), input=(4,))
    with pytest.raises(RecipeError, match="needs a rate to decay"):
        g.groups(layer_decay=0.5)


def test_rates_fall_from_the_last_layer_to_the_first():
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2)), input=(4,))
    g.freeze("2.bias")
    assert g.groups(lr=0.1, layer_decay=0.5).labels == ("all, layer 0 (0)", "all, layer 1 (2)", "all, layer 2 (3)")
    groups = g.groups({"head": {"lr": 1.0}}, lr=0.1, layer_decay=0.5)
    rates = {name: group["lr"] for group in groups for name in group["names"]}
    assert rates == pytest.approx(
        {"0.weight": 0.025, "0.bias": 0.025, "2.weight": 0.05, "3.weight": 1.0, "3.bias": 1.0}
    )


@pytest.mark.parametrize(
    ("name", "meant"), [("learning_rate", "lr"), ("wd", "weight_decay"), ("momentun", "momentum")]
)
def test_a_setting_under_another_name_is_refused_with_the_right_one(name, meant):
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), input=(4,))
    with pytest.raises(RecipeError) as refused:
        g.groups({"head": {name: 0.1}}, lr=0.1)
    assert refused.value.hint == f"did you mean {meant}?"
    assert g.groups({"head": {"lr_mult": 0.1}}, lr=0.1)
