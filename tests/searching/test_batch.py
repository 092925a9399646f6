from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.stripes import DATA, graft

from torchgraft.errors import TrainError
from torchgraft.searching.batch import BatchSearch, Size, advised, ladder, proved
from torchgraft.searching.trials import Trials


@given(predicted=st.integers(0, 5000), real=st.integers(0, 5000))
def test_what_is_proved_really_ran_and_is_near_the_largest(predicted, real):
    tried: list[int] = []

    def runs(batch: int) -> bool:
        tried.append(batch)
        return batch <= real

    found = proved(predicted, runs)
    assert found <= min(predicted, real)
    assert not found or found in tried
    assert len(tried) <= 20
    if real >= predicted:
        assert found == predicted
    elif real:
        assert found >= real - max(real // 30, 1)


def test_a_right_prediction_takes_one_run():
    tried: list[int] = []
    assert proved(300, lambda batch: not tried.append(batch)) == 300
    assert tried == [300]


@given(largest=st.integers(1, 70000), own=st.integers(1, 1000))
def test_the_sizes_that_are_timed_end_with_the_largest_and_hold_the_plans(largest, own):
    sizes = ladder(largest, own)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == largest
    assert own in sizes or own > largest
    assert len(sizes) <= 10


def sized(**speeds: float | None) -> list[Size]:
    return [Size(int(name[1:]), None, None, True, speed) for name, speed in speeds.items()]


def test_the_smallest_of_the_fast_batches_is_advised_and_the_plans_own_where_it_is_one():
    sizes = sized(b8=100.0, b16=190.0, b32=199.0, b64=200.0)
    assert advised(sizes, 8) == 16
    assert advised(sizes, 64) == 64
    assert advised(sized(b8=None), 8) == 0


def search(**other: object) -> BatchSearch:
    known = {
        "name": "net", "place": "4 GiB", "largest": 512, "power": 512, "fastest": 256, "advised": 256, "proved": True,
        "samples": 1000, "own": 64, "accumulate": 1, "optimizer": "sgd", "rate": 0.1, "sizes": (),
    }  # fmt: skip
    return BatchSearch(**{**known, **other})


@pytest.mark.parametrize(("optimizer", "rate", "rule"), [("sgd", 0.4, "linear"), ("adamw", 0.2, "square root")])
def test_the_rate_that_goes_with_another_batch_is_told_by_the_rule_of_the_optimizer(optimizer, rate, rule):
    found = search(optimizer=optimizer)
    assert (found.scaled, found.rule) == (rate, rule)
    assert f"by the {rule} rule for {optimizer}" in "\n".join(found.advice())
    assert f"lr {rate:g} instead of 0.1" in "\n".join(found.advice())


def test_where_nothing_fits_that_is_the_advice():
    assert "not even one sample fits" in str(search(largest=0, power=0, fastest=0, advised=0))


def test_a_batch_is_made_of_real_samples_again_and_again():
    trials = Trials(graft_planned(batch=16))
    made, first = trials.batch(40), trials.batch(16)
    assert made.inputs.shape == (40, 1, 8, 8)
    assert torch.equal(made.inputs[16:32], first.inputs)
    assert torch.equal(made.targets[32:], first.targets[:8])
    assert made.whole == 40


def graft_planned(**settings: object):
    from torchgraft.plan import prepared

    return prepared(graft(), DATA, settings)


def test_what_fits_is_predicted_then_run_and_everything_is_as_it_was():
    g = graft()
    before = {name: one.clone().numpy().tobytes() for name, one in g.module.state_dict().items()}
    recipe, modes = g.recipe, [one.training for one in g.module.modules()]
    torch.manual_seed(3)
    generator = torch.get_rng_state()
    found = g.find_batch(DATA, "cpu", batch=16, seconds=5)
    assert {name: one.numpy().tobytes() for name, one in g.module.state_dict().items()} == before
    assert [one.training for one in g.module.modules()] == modes
    assert g.recipe is recipe
    assert torch.equal(torch.get_rng_state(), generator)
    assert found.largest == found.samples == 96  # more samples than there are make no batch
    assert found.power == 64
    last = found.sizes[-1]
    assert (last.batch, last.fits) == (96, True)
    assert last.peak == pytest.approx(last.predicted, rel=0.02)
    assert found.proved
    assert all(one.speed > 0 for one in found.sizes if one.speed is not None)
    assert "fits up to 96 (all samples that there are)" in str(found)


def test_a_small_room_gives_the_largest_batch_that_really_fits_it():
    found = graft().find_batch(DATA, "600.7MiB", batch=16, seconds=5)
    assert 1 < found.largest < 96
    room = 0.7 * 2**20
    peak = next(one.peak for one in found.sizes if one.batch == found.largest)
    assert 0.9 * room < 1.05 * peak <= room


def test_a_room_that_this_machine_has_not_is_told_by_prediction():
    found = graft().find_batch(DATA, "900TB", batch=16, seconds=5)
    assert found.largest == 96


def test_a_device_that_is_none_is_refused():
    with pytest.raises(TrainError, match="neither a size nor a device"):
        graft().find_batch(DATA, "big", batch=16)
