from __future__ import annotations

import torch

import torchgraft as tg
from torchgraft.train.named_rates import rates_by_name


def group(lr: float, *names: str, weight_decay: float = 0.0) -> dict[str, object]:
    return {"params": [], "names": list(names), "lr": lr, "weight_decay": weight_decay}


def test_groups_are_named_by_the_module_that_holds_them():
    groups = [group(0.001, "conv1.weight", "layer1.0.weight"), group(0.01, "fc.weight", "fc.bias")]
    assert rates_by_name(groups) == {"rest": 0.001, "fc": 0.01}


def test_groups_that_differ_in_decay_alone_are_told_apart():
    groups = [group(0.1, "a.weight", "b.weight", weight_decay=0.01), group(0.1, "a.bias", "b.bias")]
    assert rates_by_name(groups) == {"all": 0.1, "all no decay": 0.1}


def test_no_rate_is_lost_where_two_groups_have_one_name():
    groups = [group(0.1, "fc.a"), group(0.2, "fc.b"), group(0.3, "fc.c")]
    assert rates_by_name(groups) == {"fc": 0.1, "fc 2": 0.2, "fc 3": 0.3}


def test_the_groups_of_an_optimizer_are_read_as_they_are():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    groups = tg.load(net, input=(3,)).groups({"2": {"lr": 0.1}}, lr=0.01, weight_decay=0.0)
    made = torch.optim.SGD(groups)
    assert rates_by_name(made.param_groups) == {"0": 0.01, "2": 0.1}
