from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torchgraft.errors import RecipeError, TrainError
from torchgraft.recipe import Recipe, TrainPlan
from torchgraft.train.schedule import Course, schedule_of


def rates(total=100, per_epoch=10, **plan):
    """The rate of each step, of a group whose own rate is 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, _ = schedule_of(TrainPlan(data="x", **plan), optimizer, total, per_epoch)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_it_rises_and_falls_as_a_cosine():
    found = rates(warmup=0.1)
    assert found[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert found[55] == pytest.approx(0.5)
    assert found[-1] < 0.001
    assert sorted(found[10:], reverse=True) == found[10:]


def test_a_cosine_may_end_above_zero():
    assert rates(schedule={"cosine": {"floor": 0.2}}, warmup=0.0, total=1000)[-1] == pytest.approx(0.2, abs=1e-4)


def test_one_cycle_is_as_torchs_own():
    ours = rates(schedule={"one_cycle": {"floor": 4e-6}})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=100, cycle_momentum=False)
    for step, rate in enumerate(ours):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        if step < 99:
            theirs.step()
    assert ours[0] == pytest.approx(0.04)
    assert max(ours) == pytest.approx(1.0, abs=1e-3)


def test_steps_fall_by_their_factor_every_so_many_epochs():
    found = rates(schedule={"step": {"every": 2, "factor": 0.5}}, warmup=0.0)
    assert [found[n] for n in (0, 19, 20, 39, 40, 99)] == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.0625])


def test_steps_come_every_third_of_the_epochs_by_themselves():
    found = rates(schedule="step", warmup=0.0, epochs=10)
    assert [found[n] for n in (29, 30, 59, 60)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_a_plateau_falls_when_the_loss_has_not_fallen_for_its_patience():
    course = Course(TrainPlan(data="x", schedule={"plateau": {"patience": 2, "factor": 0.1}}, warmup=0.0), 100, 10)
    fell = [course.judged(loss) for loss in (1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.8, 0.9)]
    assert fell == [False, False, False, False, True, False, False, False]
    assert course(50) == pytest.approx(0.1)
    again = Course(TrainPlan(data="x", schedule="plateau"), 100, 10)
    again.restore(course.state())
    assert again.state() == course.state()


@given(
    st.sampled_from(["cosine", "constant", "one_cycle", "step", "plateau"]),
    st.floats(0, 1),
    st.integers(1, 200),
    st.integers(1, 20),
)
def test_a_share_is_never_below_zero_or_above_one(name, warmup, total, per_epoch):
    course = Course(TrainPlan(data="x", schedule=name, warmup=warmup), total, per_epoch)
    assert all(0 <= course(step) <= 1 for step in range(total + 1))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{cosine: {every: 3}}", r"cosine has no 'every': it takes floor"),
        ("{constant: {factor: 0.1}}", r"constant has no 'factor': it takes no settings"),
        ("triangle", r"train.schedule"),
    ],
)
def test_a_schedule_that_can_not_be_is_told_with_its_line(text, match):
    with pytest.raises(RecipeError, match=match) as caught:
        Recipe.from_yaml(f"base: torchvision:resnet18\ntrain:\n  data: x\n  schedule: {text}\n")
    assert "recipe.yaml:4" in str(caught.value)


@pytest.mark.parametrize("text", ["constant", "{step: {every: 3, factor: 0.5}}", "{plateau: {patience: 5}}"])
def test_a_schedule_is_written_as_it_was_read(text):
    recipe = Recipe.from_yaml(f"base: torchvision:resnet18\ntrain: {{data: x, schedule: {text}}}\n")
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@pytest.mark.parametrize("per_epoch", [0, 1, 10])
def test_it_falls_after_each_third_of_the_steps_where_these_say_how_long_it_is(per_epoch):
    found = rates(total=9, per_epoch=per_epoch, steps=9, schedule="step", warmup=0.0)
    assert found == pytest.approx([1.0] * 3 + [0.1] * 3 + [0.01] * 3)


def test_it_can_not_fall_by_epochs_of_unknown_length():
    with pytest.raises(TrainError, match="nobody knows how long an epoch is"):
        rates(per_epoch=0, steps=100, schedule={"step": {"every": 2}})
