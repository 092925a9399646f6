from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import EditError


@pytest.fixture
def g():
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("stem", nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()))
    net.add_module("body", nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()))
    net.add_module("top", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net.add_module("fc", nn.Linear(8, 5))
    return tg.load(net, input=(3, 8, 8))


def adam(g, **settings):
    optimizer = torch.optim.AdamW(g.groups({"stem.**": {"lr": 1e-4}, "head": {"lr": 1e-2}}, lr=1e-3), **settings)
    step(g, optimizer)
    return optimizer


def step(g, optimizer):
    g.module(torch.ones(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def held(g, optimizer):
    """The names of every group, by identity of what it really holds."""
    names = {id(one): name for name, one in g.module.named_parameters()}
    return [[names[id(one)] for one in group["params"]] for group in optimizer.param_groups]


def test_a_new_head_takes_the_group_of_the_old_one_and_the_rest_keeps_its_state(g):
    optimizer = adam(g)
    body = optimizer.state[g.module.body[0].weight]["exp_avg"]
    old = g.module.fc.weight
    g.head(3, optimizer=optimizer)
    place = next(n for n, group in enumerate(optimizer.param_groups) if group["lr"] == 1e-2)
    assert held(g, optimizer)[place] == ["fc.weight", "fc.bias"]
    assert optimizer.param_groups[place]["names"] == ["fc.weight", "fc.bias"]
    assert old not in optimizer.state
    assert optimizer.state[g.module.body[0].weight]["exp_avg"] is body
    step(g, optimizer)
    assert sum(map(len, held(g, optimizer))) == len(list(g.module.parameters()))


def test_a_head_of_several_layers_lands_in_the_group_of_the_head(g):
    optimizer = adam(g)
    g.head(3, hidden=[4], optimizer=optimizer)
    place = next(n for n, group in enumerate(optimizer.param_groups) if group["lr"] == 1e-2)
    assert held(g, optimizer)[place] == ["fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"]


def test_an_inserted_module_joins_its_neighbours(g):
    optimizer = adam(g)
    g.insert(nn.Conv2d(8, 8, 1), after="stem.0", name="more", optimizer=optimizer)
    place = next(n for n, group in enumerate(optimizer.param_groups) if group["lr"] == 1e-4)
    assert "stem.more.weight" in held(g, optimizer)[place]


def test_what_is_frozen_leaves_and_comes_back_to_its_group(g):
    optimizer = adam(g)
    before = held(g, optimizer)
    g.freeze("stem.**", optimizer=optimizer)
    assert not any(name.startswith("stem") for group in held(g, optimizer) for name in group)
    g.unfreeze("stem.**", optimizer=optimizer)
    assert [sorted(group) for group in held(g, optimizer)] == [sorted(group) for group in before]


def test_undo_and_redo_take_the_optimizer_along_with_its_state(g):
    optimizer = adam(g)
    before, groups = held(g, optimizer), [list(group["params"]) for group in optimizer.param_groups]
    moments = {one: copy.deepcopy(state) for one, state in optimizer.state.items()}
    g.head(3, optimizer=optimizer)
    g.undo()
    assert held(g, optimizer) == before
    assert all(
        one is other
        for group, old in zip(optimizer.param_groups, groups, strict=True)
        for one, other in zip(group["params"], old, strict=True)
    )
    assert optimizer.state.keys() == moments.keys()
    assert all(torch.equal(optimizer.state[one]["exp_avg"], state["exp_avg"]) for one, state in moments.items())
    g.redo()
    assert g.module.fc.weight in optimizer.param_groups[-1]["params"]
    step(g, optimizer)


def test_steps_between_an_edit_and_its_undo_are_kept(g):
    optimizer = adam(g)
    g.head(3, optimizer=optimizer)
    step(g, optimizer)
    reached = float(optimizer.state[g.module.body[0].weight]["step"])
    g.undo()
    assert reached == 2
    assert float(optimizer.state[g.module.body[0].weight]["step"]) == reached


def test_a_refused_edit_leaves_the_optimizer_alone(g):
    optimizer = adam(g)
    before = [list(map(id, group["params"])) for group in optimizer.param_groups]
    with pytest.raises(EditError):
        g.replace("body", nn.Conv2d(8, 16, 3, padding=1), optimizer=optimizer)
    assert [list(map(id, group["params"])) for group in optimizer.param_groups] == before


def test_what_a_fix_puts_in_is_followed_too(g):
    optimizer = adam(g)
    g.replace("body", nn.Conv2d(8, 16, 3, padding=1), fix="adapt", optimizer=optimizer)
    assert sum(map(len, held(g, optimizer))) == len(list(g.module.parameters()))


def test_a_schedule_goes_on_and_the_state_dict_loads(g):
    optimizer = adam(g)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    g.head(3, optimizer=optimizer)
    step(g, optimizer)
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [
        rate * 0.5 for rate in [group["initial_lr"] for group in optimizer.param_groups]
    ]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def test_an_optimizer_of_another_model_is_refused(g):
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(EditError, match="holds no parameter of this model"):
        g.head(3, optimizer=other)
    assert g.module.fc.out_features == 5


def test_an_optimizer_whose_parameters_were_all_frozen_gets_them_back(g):
    optimizer = adam(g)
    g.freeze("**", optimizer=optimizer)
    assert held(g, optimizer) == [[] for _ in optimizer.param_groups]
    g.unfreeze("head", optimizer=optimizer)
    place = next(n for n, group in enumerate(optimizer.param_groups) if group["lr"] == 1e-2)
    assert held(g, optimizer)[place] == ["fc.weight", "fc.bias"]


def test_a_plain_list_of_parameters_is_followed(g):
    optimizer = torch.optim.SGD(g.module.parameters(), lr=0.1)
    g.head(3, optimizer=optimizer)
    assert held(g, optimizer) == [[name for name, _ in g.module.named_parameters()]]
