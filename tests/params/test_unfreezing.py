from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import SelectionError, TrainError
from torchgraft.params.still import train_mode
from torchgraft.params.unfreezing import by_layers, gradually
from torchgraft.trace.order import order


def net():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(body, nn.Linear(8, 8), nn.Linear(8, 2))


def started(**settings):
    model = net()
    for part in (model[0], model[1]):
        part.requires_grad_(False)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], **settings)
    return model, optimizer


def step(model, optimizer):
    train_mode(model)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(6, 4) * 2 + 1), torch.tensor([0, 1] * 3)).backward()
    optimizer.step()


def test_each_step_moves_what_it_unfroze_and_nothing_before():
    model, optimizer = started(lr=0.1)
    start = gradually(model, optimizer, {2: "1", 3: {"at": "0", "lr": 0.01}})
    seen = {}
    for epoch in (1, 2, 3):
        seen[epoch] = start(epoch)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        step(model, optimizer)
        moved = {
            name.partition(".")[0] for name, t in model.state_dict().items() if not torch.equal(t, before[name])
        }
        assert moved == {1: {"2"}, 2: {"1", "2"}, 3: {"0", "1", "2"}}[epoch]
    assert seen == {1: (), 2: ("1.weight", "1.bias"), 3: ("0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias")}


def test_the_state_of_the_rest_is_kept_and_norms_are_spared_from_decay():
    model, optimizer = started(lr=0.1, weight_decay=0.1)
    step(model, optimizer)
    momentum = optimizer.state[model[2].weight]["exp_avg"]
    gradually(model, optimizer, {2: {"at": "0", "lr": 0.01}})(2)
    assert optimizer.state[model[2].weight]["exp_avg"] is momentum
    added = {name: group for group in optimizer.param_groups[1:] for name in group["names"]}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in added.items()} == {
        "0.0.weight": (0.01, 0.1),
        "0.0.bias": (0.01, 0),
        "0.1.weight": (0.01, 0),
        "0.1.bias": (0.01, 0),
    }


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
        lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: 1 / (n + 1)),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=12),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=2),
                torch.optim.lr_scheduler.CosineAnnealingLR(o, 8),
            ],
            [2],
        ),
    ],
)
def test_a_schedule_goes_on_for_the_new_groups_in_the_same_shape(schedule):
    model, optimizer = started(lr=0.1)
    going = schedule(optimizer)
    start = gradually(model, optimizer, {4: {"at": "1", "lr": 0.01}}, schedule=going)
    for epoch in range(1, 9):
        start(epoch)
        if epoch >= 4:
            first, new = optimizer.param_groups[0]["lr"], optimizer.param_groups[-1]["lr"]
            assert new == pytest.approx(first / 10, rel=1e-6)
        step(model, optimizer)
        going.step()


def test_an_optimizer_of_named_parameters_keeps_its_names():
    model = net()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([(n, one) for n, one in model.named_parameters() if one.requires_grad], lr=0.1)
    gradually(model, optimizer, {2: "0.0"})(2)
    assert optimizer.param_groups[-1]["param_names"] == ["0.0.weight", "0.0.bias"]
    optimizer.state_dict()


def test_what_unfreezes_nothing_is_told_at_once():
    model, optimizer = started(lr=0.1)
    with pytest.raises(TrainError, match="2 is trainable before epoch 3 already"):
        gradually(model, optimizer, {3: "2"})
    with pytest.raises(TrainError, match=r"0\.0 is trainable before epoch 5 already"):
        gradually(model, optimizer, {3: "**", 5: "0.0"})
    with pytest.raises(SelectionError, match="matches no"):
        gradually(model, optimizer, {3: "layer9"})


def test_layer_by_layer_goes_from_the_output_to_the_input():
    g = tg.load("torchvision:resnet18@none", input=(3, 64, 64))
    steps = by_layers(order(g.trace(), g.module), every=2)
    assert list(steps) == list(range(3, 21, 2))
    assert {name.rpartition(".")[0].partition(".conv")[0] for name in steps[3]} >= {"layer4.1"}
    assert set(steps[19]) == {"conv1.weight", "bn1.weight", "bn1.bias"}
    assert all("fc" not in name for names in steps.values() for name in names)


def test_a_training_that_is_resumed_makes_up_for_the_steps_before():
    def resumable():
        model, optimizer = started(lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        steps = {2: "1", 3: {"at": "0", "lr": 0.01}, 6: "2.bias"}
        model[2].bias.requires_grad_(False)
        optimizer.param_groups[0]["params"].pop()
        return model, optimizer, schedule, gradually(model, optimizer, steps, schedule=schedule)

    model, optimizer, schedule, start = resumable()
    for epoch in range(1, 5):
        start(epoch)
        step(model, optimizer)
        schedule.step()
    saved = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    again, resumed, going, go_on = resumable()
    assert len(go_on(4)) == 6
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(saved[0])
    going.load_state_dict(saved[1])
    assert [one["lr"] for one in resumed.param_groups] == [one["lr"] for one in optimizer.param_groups]
    assert torch.equal(resumed.state[again[1].weight]["exp_avg"], optimizer.state[model[1].weight]["exp_avg"])
    assert go_on(5) == ()
    assert go_on(6) == start(6) == ("2.bias",)
    for each, its in ((model, optimizer), (again, resumed)):
        torch.manual_seed(1)
        step(each, its)
    assert torch.equal(model[0][0].weight, again[0][0].weight)
