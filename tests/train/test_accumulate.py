from __future__ import annotations

import pytest

from torchgraft.train.accumulate import Turn, grouped, turns
from torchgraft.train.feed import Batch


def test_a_step_of_one_batch_is_all_of_it():
    found = turns([8, 8, 3], 1)
    assert [turn.share for turn in found] == [1.0, 1.0, 1.0]
    assert all(turn.opens and turn.closes for turn in found)


def test_the_last_group_counts_its_own_samples_only():
    found = turns([8, 8, 8, 8, 2], 3)
    assert [turn.opens for turn in found] == [True, False, False, True, False]
    assert [turn.closes for turn in found] == [False, False, True, False, True]
    assert [turn.share for turn in found] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.8, 0.2])


def test_no_batches_make_no_step():
    assert turns([], 4) == []


def test_where_nobody_knows_how_many_batches_there_are_the_last_group_closes_with_the_last_one():
    batches, group, seen = [Batch(None, None, whole) for whole in (8, 8, 8, 8, 2)], list[Turn](), []
    for number, _ in enumerate(grouped(batches, 3, group)):
        seen.append(group[number % len(group)] if number < 3 else group[number - 3])
    assert seen == turns([8, 8, 8, 8, 2], 3)
