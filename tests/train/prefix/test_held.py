"""Where rows are kept, and how much room they may take."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest
import torch

from torchgraft.train.prefix import Held, NoRoom, Refused, place_of
from torchgraft.train.prefix.place import too_short
from torchgraft.trainplan import TrainPlan

KINDS = [((4, 2), torch.float32), ((3,), torch.bfloat16)]


def rows(count, start=0):
    numbers = torch.arange(count * 8, dtype=torch.float32).reshape(count, 4, 2) + start
    return [numbers, torch.ones(count, 3, dtype=torch.bfloat16) * start]


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_come_back_by_sample_and_view(tmp_path, on_disk):
    held = Held(KINDS, 6, views=2, folder=tmp_path / "run" if on_disk else None)
    assert held.bytes == 12 * (32 + 6)
    held.put([4, 1], 1, rows(2, 100))
    assert held.holds([1], 1)
    assert not held.holds([1, 2], 1)
    assert not held.holds([1], 0)
    big, small = held.get([1, 4], 1)
    assert torch.equal(big, rows(2, 100)[0].flip(0))
    assert small.dtype == torch.bfloat16
    big.zero_()
    assert torch.equal(held.get([4], 1)[0], rows(2, 100)[0][:1])


def test_no_file_is_left_even_while_it_is_used(tmp_path):
    held = Held(KINDS, 6, folder=tmp_path)
    held.put([0], 0, rows(1))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told(tmp_path):
    with pytest.raises(NoRoom, match="does not have so much room"):
        Held([((2**20,), torch.float32)], 2**30, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def plan(**settings):
    return TrainPlan(data="digits", **settings)


def test_room_is_asked_first(tmp_path, monkeypatch):
    assert place_of(plan(), 2**20, None) == "memory"
    assert place_of(plan(cache="disk"), 2**20, tmp_path / "run") == "disk"
    assert "cache_limit is 0.5" in place_of(plan(cache_limit=0.5), 2**30, None).why
    assert "no folder" in place_of(plan(cache="disk"), 2**20, None).why
    assert "off" in place_of(plan(cache="off"), 1, None).why
    usage = namedtuple("usage", "total used free")(2, 1, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "has 0.00 left" in place_of(plan(cache="disk"), 2**20, tmp_path).why
    assert isinstance(place_of(plan(cache="memory", cache_limit=1e9), 2**60, None), Refused)


def test_short_trainings_do_not_pay():
    assert too_short(plan(), 1, 500)
    assert too_short(plan(), 3, 4)
    assert not too_short(plan(), 3, 5)
    assert not too_short(plan(cache="memory"), 2, 1)
