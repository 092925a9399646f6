"""What each process has for itself, put together by hand: no process is started."""

from __future__ import annotations

import pytest
import torch

from torchgraft.train.many.apart import needed, own
from torchgraft.train.snapshot import Snapshot
from torchgraft.train.world import ALONE, World


def saved():
    """What two processes leave: three samples counted here, five there."""
    tensors = {
        "model/fc": torch.ones(2),
        "model/norm": torch.tensor([1.0, 3.0]),
        "of 1/model/norm": torch.tensor([3.0, 5.0]),
        "rng/cpu": torch.tensor([7]),
        "of 1/rng/cpu": torch.tensor([8]),
        "meter/right": torch.tensor([3]),
        "of 1/meter/right": torch.tensor([5]),
    }
    each = [{"random": "first", "sums": [1.5, 3]}, {"random": "second", "sums": [2.5, 5]}]
    apart = ["meter/right", "model/norm", "rng/cpu"]
    return Snapshot(
        tensors, {"best": 2, "random": "first", "sums": [1.5, 3], "processes": 2, "apart": apart, "each": each}
    )


def test_as_many_processes_have_their_own_again():
    mine = own(saved(), World(rank=1, size=2))
    assert mine.tensors["model/norm"].tolist() == [3.0, 5.0]
    assert mine.tensors["rng/cpu"].item() == 8
    assert mine.tensors["meter/right"].item() == 5
    assert mine.notes == {"best": 2, "random": "second", "sums": [2.5, 5]}
    assert not any(name.startswith("of ") for name in mine.tensors)


def test_one_process_gets_the_mean_of_statistics_and_the_sum_of_counts():
    mine = own(saved(), ALONE)
    assert mine.tensors["model/norm"].tolist() == [2.0, 4.0]
    assert mine.tensors["meter/right"].item() == 8
    assert mine.tensors["rng/cpu"].item() == 7
    assert mine.notes["sums"] == [4.0, 8]


def test_of_more_processes_the_later_ones_count_from_nought_and_keep_their_fresh_random_numbers():
    third = own(saved(), World(rank=2, size=4))
    assert third.tensors["meter/right"].item() == 0
    assert third.tensors["model/norm"].tolist() == [2.0, 4.0]
    assert "rng/cpu" not in third.tensors
    assert third.notes["random"] is None
    assert third.notes["sums"] == [0, 0]


def test_a_state_of_one_process_goes_on_in_two():
    alone = Snapshot(
        {"meter/right": torch.tensor([4]), "rng/cpu": torch.tensor([7])}, {"random": "r", "sums": [2.0, 4]}
    )
    first, second = (own(alone, World(rank=rank, size=2)) for rank in (0, 1))
    assert (first.tensors["meter/right"].item(), second.tensors["meter/right"].item()) == (4, 0)
    assert (first.notes["sums"], second.notes["sums"]) == ([2.0, 4], [0, 0])
    assert (first.notes["random"], second.notes["random"]) == ("r", None)


def test_a_process_reads_nothing_that_another_has_for_itself():
    names = list(saved().tensors)
    assert "of 1/rng/cpu" not in needed(names, 2, World(rank=0, size=2))
    assert "of 1/rng/cpu" in needed(names, 2, World(rank=1, size=2))
    assert needed(names, 2, ALONE) == names


@pytest.mark.parametrize(("count", "size"), [(10, 4), (2, 4), (16, 3), (1, 1)])
def test_parts_differ_by_one_at_most_and_are_the_whole_together(count, size):
    parts = [range(count)[World(rank=rank, size=size).part(count)] for rank in range(size)]
    assert [one for part in parts for one in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_processes_draw_from_seeds_of_their_own_that_numpy_takes():
    seeds = [World(rank=rank, size=64).seed(3) for rank in range(64)]
    assert seeds[0] == 3
    assert len(set(seeds)) == 64
    assert all(0 <= seed < 2**32 for seed in seeds)
