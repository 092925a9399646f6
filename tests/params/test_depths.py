from __future__ import annotations

import itertools

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from torchgraft.params.depths import depths_of
from torchgraft.params.groups import parameter_groups
from torchgraft.trace import trace
from torchgraft.trace.order import order

DECLARED = [
    "resnet18",
    "resnet50d",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "beit_base_patch16_224",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "densenet121",
    "regnety_002",
    "mixer_s32_224",
    "xcit_nano_12_p16_224",
    "legacy_xception",
]
ALIKE = {"deit_tiny_distilled_patch16_224": 0.995, "xcit_nano_12_p16_224": 0.99, "mixer_s32_224": 0.99}


def built(name):
    with torch.device("meta"):
        return timm.create_model(name)


def traced(model):
    size = model.pretrained_cfg["input_size"]
    return order(trace(model, torch.empty(2, *size, device="meta")), model)


@pytest.mark.parametrize("name", DECLARED)
def test_names_rates_and_decays_are_those_of_timms_own_function(name):
    model = built(name)
    spared = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    theirs = param_groups_layer_decay(model, weight_decay=0.05, no_weight_decay_list=spared, layer_decay=0.75)
    wanted = {id(one): (g["lr_scale"], g["weight_decay"]) for g in theirs for one in g["params"]}
    ours = parameter_groups(
        model,
        {},
        {"lr": 1.0, "weight_decay": 0.05},
        layer_decay=0.75,
        depths=lambda: depths_of(model, lambda: traced(model)),
    )
    found = {id(one): (g["lr"], g["weight_decay"]) for g in ours for one in g["params"]}
    assert found.keys() == wanted.keys()
    assert all(found[key] == pytest.approx(wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", DECLARED)
def test_the_traced_order_agrees_with_what_timm_declares(name):
    """Nearly all pairs of parameters stand alike; the rest is the final norm, which timm numbers by itself."""
    model = built(name)
    declared, found = depths_of(model, lambda: traced(model)), traced(model).depths
    pairs = list(itertools.combinations(declared, 2))
    alike = sum(
        (found[a] > found[b]) - (found[a] < found[b]) == (declared[a] > declared[b]) - (declared[a] < declared[b])
        for a, b in pairs
    )
    assert alike / len(pairs) >= ALIKE.get(name, 0.997)
    assert abs(max(found.values()) - max(declared.values())) <= 1


def test_a_model_that_declares_nothing_is_numbered_by_its_pass():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    found = depths_of(model, lambda: order(trace(model, torch.empty(2, 4)), model))
    assert found == {"0.weight": 0, "0.bias": 0, "1.weight": 1, "1.bias": 1}
