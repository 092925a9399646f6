from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.train.stripes import DATA, graft
from torch import nn

from torchgraft.data.base import ArraySamples
from torchgraft.errors import TrainError
from torchgraft.searching.plot import draw_rates
from torchgraft.searching.rate import BREAK, judged, smoothed

RATES = [10 ** (-7 + 8 * n / 99) for n in range(100)]


def curve(low: float = 1e-4, high: float = 1e-1) -> list[float]:
    """A loss that is flat up to a rate, falls to another, and then breaks."""

    def loss(rate: float) -> float:
        if rate < low:
            return 2.0
        if rate < high:
            return 2.0 - 1.5 * (np.log10(rate / low) / np.log10(high / low))
        return 0.5 + 10.0 * np.log10(rate / high) ** 2

    return [loss(rate) for rate in RATES]


def test_the_suggestions_lie_where_the_loss_falls():
    found = judged(RATES, curve(), broke=True, own=1e-3, groups=[("head", 1e-2)])
    assert 1e-4 <= found.steepest <= 1e-1
    assert 3e-4 <= found.tenth <= 1e-2
    assert 1e-4 <= found.valley <= 3e-2
    assert found.suggestion == pytest.approx(found.steepest, rel=0.06)
    assert float(f"{found.suggestion:.1e}") == found.suggestion


@pytest.mark.parametrize("shift", [0, 12, -12])
def test_a_curve_that_is_moved_moves_the_suggestions_with_it(shift):
    found = judged(RATES, curve(), broke=True, own=1.0, groups=[])
    rates = [rate * 10 ** (shift / 12) for rate in RATES]
    moved = judged(rates, curve(), broke=True, own=1.0, groups=[])
    factor = 10 ** (shift / 12)
    assert moved.steepest == pytest.approx(found.steepest * factor)
    assert moved.valley == pytest.approx(found.valley * factor)


def test_smoothing_shifts_nothing():
    step = np.r_[np.ones(50), np.zeros(50)]
    assert abs(int(np.gradient(smoothed(step)).argmin()) - 49) <= 1


@pytest.mark.slow
def test_the_valley_is_that_of_fastai():
    schedule = pytest.importorskip("fastai.callback.schedule")
    found = judged(RATES, curve(), broke=True, own=1.0, groups=[])
    theirs, _ = schedule.valley(RATES, list(found.smooth), 100)
    assert found.valley == theirs


def test_a_loss_that_falls_nowhere_is_told():
    with pytest.raises(TrainError, match="falls at no rate"):
        judged(RATES, [2.0] * 100, broke=False, own=1.0, groups=[])
    with pytest.raises(TrainError, match="broke after 3 steps") as refused:
        judged(RATES[:3], [2.0, 3.0, 9.0], broke=True, own=1.0, groups=[])
    assert "--low" in refused.value.hint


def test_a_range_test_finds_a_rate_that_learns_and_leaves_everything_as_it_was():
    g = graft()
    g.freeze(at="stem")
    g.module.drop.eval()
    g.module.fc.weight.grad = torch.ones_like(g.module.fc.weight)
    before = {name: one.clone().numpy().tobytes() for name, one in g.module.state_dict().items()}
    recipe, modes = g.recipe, [one.training for one in g.module.modules()]
    flags = [one.requires_grad for one in g.module.parameters()]
    torch.manual_seed(5)
    generators = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    found = g.find_rate(DATA, batch=16, precision="bf16", accumulate=2, tries=60)
    assert {name: one.numpy().tobytes() for name, one in g.module.state_dict().items()} == before
    assert [one.training for one in g.module.modules()] == modes
    assert [one.requires_grad for one in g.module.parameters()] == flags
    assert torch.equal(g.module.fc.weight.grad, torch.ones_like(g.module.fc.weight))
    assert g.recipe is recipe
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (np.random.get_state()[1].tobytes(), random.getstate()) == generators[1:]
    assert 1e-5 < found.suggestion < 1.0
    history = g.train(DATA, batch=16, epochs=4, optimizer={"adamw": {"lr": found.suggestion}})
    assert history.epochs[-1].val_accuracy > 0.9


def test_the_same_search_gives_the_same_answer():
    first, again = (graft().find_rate(DATA, batch=16, tries=30) for _ in range(2))
    assert first == again


def test_every_group_keeps_its_ratio_and_what_is_frozen_stands_still(monkeypatch):
    g = graft()
    g.freeze(at="stem.0")
    still = g.module.stem[0].weight.detach().clone()
    seen: list[list[float]] = []
    step = torch.optim.AdamW.step

    def watched(self, *args):
        seen.append([group["lr"] for group in self.param_groups])
        assert torch.equal(g.module.stem[0].weight, still)
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    plan = {"optimizer": {"adamw": {"lr": 0.001, "weight_decay": 0.0}}, "groups": [{"at": "fc", "lr": 0.01}]}
    found = g.find_rate(DATA, batch=16, tries=24, low=1e-6, high=1e-3, **plan)
    assert [min(rates) for rates in seen] == pytest.approx(list(found.rates))
    assert all(max(rates) == pytest.approx(10 * min(rates)) for rates in seen)
    assert found.rates[0] == pytest.approx(1e-6)
    assert found.scaled == (("fc", pytest.approx(10 * found.suggestion, rel=0.06)),)


def test_the_test_ends_where_the_loss_breaks():
    labels = np.random.default_rng(0).integers(0, 3, len(DATA.train))
    senseless = replace(DATA, train=ArraySamples(DATA.train.images, labels))
    found = graft().find_rate(senseless, batch=16, high=1e3)
    assert found.broke
    assert len(found.rates) < 100
    assert max(found.losses) > BREAK * min(found.losses)


def test_a_task_that_is_learnt_on_the_way_does_not_move_the_suggestion_up_to_the_last_rate():
    found = graft().find_rate(DATA, batch=16, optimizer="sgd", clip=None, high=1e4)
    assert not found.broke
    assert 1e-3 < found.suggestion < 1e-1


def test_a_range_that_is_none_and_a_plan_without_a_rate_are_refused():
    with pytest.raises(TrainError, match="no range"):
        graft().find_rate(DATA, low=1.0, high=0.1)
    with pytest.raises(TrainError, match="every learning rate is 0"):
        graft().find_rate(DATA, optimizer={"sgd": {"lr": 0.0}})


def test_a_model_that_can_not_be_trained_is_told_as_g_train_tells_it():
    g = graft()
    nn.init.constant_(g.module.fc.bias, float("nan"))
    with pytest.raises(TrainError, match="the loss is nan"):
        g.find_rate(DATA, batch=16)


def test_the_curve_is_drawn_with_letters_and_as_a_picture(tmp_path):
    found = judged(RATES, curve(), broke=True, own=1e-3, groups=[("head", 1e-2)])
    text = str(found)
    assert f"suggestion           {found.suggestion:g}  the steepest fall (the plan has 0.001)" in text
    assert "1e-5" in text
    assert max(len(line) for line in text.splitlines()) <= 90
    assert draw_rates(found, tmp_path / "rate.png").read_bytes().startswith(b"\x89PNG")
