"""Faults that trainers pass over in silence: what torchgraft's own training, and its watch, do about each.

`benchmarks/silent.py` has the same for nine other trainers; `tests/integrations` for those that have a callback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.integrations.nets import Net, WithOrphan, frozen_body, images, is_finite, same, statistics
from torch import nn

import torchgraft as tg
from torchgraft.errors import TrainError
from torchgraft.rules.finding import Finding
from torchgraft.train.feed import Batch, Feed
from torchgraft.train.loop import _Run
from torchgraft.train.rates import starting
from torchgraft.train.session import Feeds, Session
from torchgraft.train.stop import Stop
from torchgraft.train.tasks.classes import Classes
from torchgraft.train.watch import Watch
from torchgraft.trainplan import TrainPlan


class Made(Feed):
    """Four batches of eight images; one holds a NaN, where it is asked for."""

    def __init__(self, bad: int | None = None) -> None:
        self.x, self.y = images(bad=bad)[:]

    def sizes(self) -> list[int]:
        return [8] * 4

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        return (Batch(self.x[n : n + 8], self.y[n : n + 8], 8) for n in range(start * 8, 32, 8))


def session(net: nn.Module, steps: Any = (), *, bad: int | None = None, **settings: Any) -> Session:
    given = {"data": "python", "epochs": 2, "batch": 8, "keep": "last", **settings}
    plan = TrainPlan.model_validate(given)
    return Session(tg.load(net), plan, Feeds(Made(bad), Made()), Classes(4), torch.device("cpu"), steps=steps)


def train(net: nn.Module, **settings: Any) -> list[Finding]:
    told: list[Finding] = []
    _Run(session(net, **settings), Watch(found=told.append), None, Stop()).to_the_end()
    return told


def own_loop(net: nn.Module, keep: Callable[[nn.Module], Any] = tg.train_mode, *, epochs: int = 2) -> None:
    optimizer = torch.optim.SGD([one for one in net.parameters() if one.requires_grad], lr=0.05)
    for _ in range(epochs):
        keep(net)
        for batch in Made().batches(1):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(batch.inputs), batch.targets).backward()
            optimizer.step()


def test_a_frozen_norm_is_not_put_back_into_training_mode() -> None:
    for run in (train, own_loop):
        net = frozen_body(Net())
        before = statistics(net)
        run(net)
        assert same(statistics(net), before)


def test_without_us_it_is() -> None:
    net = frozen_body(Net())
    net.body.eval()
    before = statistics(net)
    own_loop(net, lambda model: model.train())
    assert not same(statistics(net), before)


def test_features_of_a_frozen_body_do_not_depend_on_the_batch() -> None:
    net = frozen_body(Net())
    given = images(8)[:][0]
    apart: list[float] = []
    whole = net.head.forward

    def look(x: torch.Tensor) -> torch.Tensor:
        if net.training:
            apart.append(float((net.body(given)[:1] - net.body(given[:4])[:1]).abs().max()))
        return whole(x)

    net.head.forward = look  # type: ignore[method-assign]
    train(net)
    assert len(apart) == 8
    assert max(apart) < 1e-5


def test_a_body_that_was_unfrozen_before_a_stop_goes_on_after_the_resume() -> None:
    plan = {"epochs": 3, "unfreeze": {"epoch": 2, "at": "body"}}
    first = frozen_body(Net())
    given = TrainPlan.model_validate({"data": "python", **plan})
    with starting(tg.load(first), given) as steps:
        one = session(first, steps, **plan)
        for _ in range(2):
            one.open_epoch()
            for batch in one.feeds.train.batches(1):
                one.step(batch)
            one.close_epoch()
        saved = one.snapshot()
    again = frozen_body(Net())
    with starting(tg.load(again), given) as steps:
        other = session(again, steps, **plan)
        other.restore(saved, {})
        other.open_epoch()
        before = again.body[0].weight.detach().clone()
        other.step(next(other.feeds.train.batches(3)))
        assert all(one.requires_grad for one in again.body.parameters())
        assert not torch.equal(again.body[0].weight, before)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_batch_with_nan_stops_before_weights_or_statistics_are_spoilt(clip: float | None) -> None:
    net = Net()
    with pytest.raises(TrainError, match="epoch 1, step 2"):
        train(net, bad=11, clip=clip)
    assert is_finite(net)


def test_a_gradient_alone_that_is_not_finite_names_who_got_it_first() -> None:
    net = Net()
    net.head.weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(TrainError, match=r"head\.weight"):
        train(net)
    assert is_finite(net)


def test_a_layer_that_nothing_uses_is_told_once() -> None:
    told = train(WithOrphan())
    assert [(one.code, one.where) for one in told] == [("T021", "WithOrphan / forgotten")]


def test_a_sound_training_is_told_nothing() -> None:
    assert train(Net()) == []
    assert train(frozen_body(Net())) == []
