from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.train.told import BEGIN, Clock, moment

from torchgraft.train.pace import Pace, Smooth


def paced(begin=BEGIN, *, each: float = 0.5, upto: int = 12) -> tuple[Pace, Clock]:
    clock = Clock()
    pace = Pace(begin, clock)
    for number in range(begin.done + 1, upto + 1):
        clock.now += 7.0 if number == begin.done + 1 else each  # the first step warms up
        pace.step(moment(number))
        pace.mark()
    return pace, clock


def test_before_the_first_step_nothing_is_known_but_the_plan():
    now = Pace(BEGIN, Clock()).now()
    assert (now.epoch, now.epochs, now.steps, now.total, now.share) == (1, 3, 4, 12, 0.0)
    assert now.left is None
    assert math.isnan(now.speed)
    assert math.isnan(now.loss)


def test_speed_and_time_left_are_of_the_whole_run_without_its_first_step():
    now = paced(upto=6)[0].now()
    assert now.speed == pytest.approx(8 / 0.5)
    assert now.left == pytest.approx(6 * 0.5)
    assert now.share == 0.5


def test_right_after_a_resume_the_time_left_is_that_of_the_steps_left():
    resumed = paced(replace(BEGIN, done=8, epoch=3), upto=10)[0].now()
    assert (resumed.epoch, resumed.step, resumed.number) == (3, 2, 10)
    assert resumed.left == pytest.approx(2 * 0.5)


def test_judging_an_epoch_counts_for_every_epoch_left_and_not_as_training():
    pace, clock = paced(upto=4)
    clock.now += 20.0
    pace.judged(20.0)
    for number in (5, 6):
        clock.now += 0.5
        pace.step(moment(number))
        pace.mark()
    now = pace.now()
    assert now.speed == pytest.approx(16.0)
    assert now.left == pytest.approx(6 * 0.5 + 2 * 20.0)  # epochs 2 and 3 are still to be judged


def test_only_the_last_seconds_say_how_fast_it_is():
    pace, clock = paced(replace(BEGIN, total=200), each=5.0, upto=10)
    for number in range(11, 60):
        clock.now += 0.5
        pace.step(moment(number))
        pace.mark()
    assert pace.now().speed == pytest.approx(16.0)


def test_a_stream_of_unknown_length_has_a_speed_and_no_end():
    now = paced(replace(BEGIN, total=0, steps=0), upto=5)[0].now()
    assert now.left is None
    assert now.share == 0.0
    assert now.speed == pytest.approx(16.0)


def test_the_smoothed_loss_of_one_number_is_that_number():
    smooth = Smooth()
    smooth.add(3.0)
    assert smooth.value == pytest.approx(3.0)
    smooth.add(1.0)
    assert 1.0 < smooth.value < 3.0
