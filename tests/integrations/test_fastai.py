"""fastai's Learner, with our callback in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from tests.integrations.nets import Net, WithOrphan, frozen_body, images, is_finite, same, statistics
from torch import nn

from torchgraft.errors import TorchgraftWarning, TrainError
from torchgraft.integrations.fastai import GraftCallback, splitter


class Peek(nn.Module):
    """Notes at each training pass whether anything in the body trains, and its first weight."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.seen: list[bool] = []
        self.weights: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(any(one.training for one in self.net.body.modules()))
            self.weights.append(self.net.body[0].weight.detach().clone())
        return self.net(x)


def learner(model: nn.Module, *callbacks: Any, bad: int | None = None, **more: Any) -> Learner:
    train, val = images(bad=bad), images(8)
    loaders = DataLoaders(DataLoader(train, bs=8), DataLoader(val, bs=8), device=torch.device("cpu"))
    learn = Learner(loaders, model, loss_func=nn.functional.cross_entropy, cbs=list(callbacks), lr=0.05, **more)
    for name in ("progress", "recorder"):
        learn.remove_cbs([one for one in learn.cbs if one.name == name])
    return learn


def test_frozen_norms_keep_their_statistics_although_fastai_wakes_them_at_each_epoch() -> None:
    model = Peek(frozen_body(Net()))
    before = statistics(model)
    learner(model, GraftCallback()).fit(2)
    assert same(statistics(model), before)
    assert model.seen == [False] * 8


def test_without_the_callback_they_drift() -> None:
    model = Peek(frozen_body(Net()))
    before = statistics(model)
    learner(model).fit(1)
    assert not same(statistics(model), before)


@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
def test_a_batch_with_nan_stops_before_anything_is_spoilt() -> None:
    model = Net()
    learn = learner(model, GraftCallback(), bad=11)
    with pytest.raises(TrainError, match="spoil the weights"):
        learn.fit(1)
    assert is_finite(model)


@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
@pytest.mark.parametrize("of_torch", [False, True])
def test_such_a_step_can_be_left_out(of_torch: bool) -> None:
    model = Net()
    more = {"opt_func": lambda params, **_: OptimWrapper(params, torch.optim.SGD, lr=0.05)} if of_torch else {}
    learn = learner(model, GraftCallback(on_nan="skip"), bad=11, **more)
    learn.fit(2)
    assert is_finite(model)
    assert learn.graft.watched.skipped == 2


def test_a_parameter_without_gradients_is_told() -> None:
    learn = learner(WithOrphan(), GraftCallback())
    with pytest.warns(TorchgraftWarning, match="forgotten"):
        learn.fit(1)
    assert [one.code for one in learn.graft.findings] == ["T021"]


def test_the_body_is_unfrozen_by_epochs() -> None:
    model = Peek(Net())
    learn = learner(model, GraftCallback(unfreeze={3: "net.body"}))
    learn.fit(3)
    assert all(torch.equal(one, model.weights[0]) for one in model.weights[:9]), "still through two epochs"
    assert not torch.equal(model.weights[9], model.weights[8])
    assert model.seen == [False] * 8 + [True] * 4
    assert learn.graft.findings == ()


def test_groups_by_selectors_have_rates_of_their_own() -> None:
    model = Net()
    learn = learner(model, GraftCallback(), splitter=splitter({"body": {}, "head": {}}))
    learn.fit(1, lr=[0.001, 0.05])
    assert [len(group) for group in learn.opt.param_lists] == [8, 2]
    assert [group["lr"] for group in learn.opt.param_groups] == [0.001, 0.05]
